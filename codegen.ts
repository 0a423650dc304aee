import type { CodegenConfig } from '@graphql-codegen/cli';

/** The typed documents of the consumer client. */
const config: CodegenConfig = {
  schema: './schema.graphql',
  documents: './src/consumer-client/documents/*.graphql',
  generates: {
    './src/consumer-client/generated/': {
      preset: 'client',
      // Beside the documents, a manifest of them for GRAPHQL_DOCUMENTS_PATH.
      presetConfig: { fragmentMasking: false, persistedDocuments: { hashAlgorithm: 'sha256' } },
      config: {
        documentMode: 'string',
        scalars: { DateTime: 'string', JSON: 'unknown', ID: 'string' },
        defaultScalarType: 'unknown',
        strictScalars: true,
        useTypeImports: true,
        enumsAsTypes: true,
        immutableTypes: true,
        avoidOptionals: { field: true },
        importExtension: '.ts',
      },
    },
  },
};

export default config;
