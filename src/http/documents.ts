import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { AegisError } from '../errors.ts';

/** The manifest cannot be read, or is none. The text names the file. */
export class DocumentsError extends Error {
  constructor(reason: string, options?: ErrorOptions) {
    super(reason, options);
    this.name = 'DocumentsError';
  }
}

/** What of a request's parameters names a document. An empty `query` counts as absent: graphql-ws demands that there be one. */
export interface DocumentParams {
  query?: string | undefined | null;
  /** `sha256:` and 64 lower-case hex digits over the exact text (GraphQL over HTTP, appendix "Persisted Documents"). */
  documentId?: unknown;
  /** Apollo's way to say the same: `persistedQuery: { version: 1, sha256Hash }`. */
  extensions?: unknown;
}

/** Documents that are known by the hash of their text. */
export interface Documents {
  /**
   * The text of the document that a request means; undefined where it means none. Throws BAD_USER_INPUT where id and text do not fit or the id is none,
   * PERSISTED_QUERY_NOT_FOUND, PERSISTED_QUERY_NOT_SUPPORTED, and DOCUMENT_NOT_ALLOWED.
   */
  textOf(params: DocumentParams): string | undefined;
}

/** `off`: texts alone; `allow`: ids as well; `only`: nothing but what is in the manifest, by its id or its exact text. */
export type DocumentsMode = 'off' | 'allow' | 'only';

const soundHash = /^[0-9a-f]{64}$/;
const manifestSchema = z.record(z.string(), z.string());
const persistedQuerySchema = z.object({ persistedQuery: z.object({ version: z.literal(1), sha256Hash: z.string() }) });

/** `path`: a manifest as codegen's client preset writes it, JSON of hashes and texts; null under `off`. */
export function createDocuments(mode: DocumentsMode, path: string | null): Documents {
  const texts = path === null ? new Map<string, string>() : readManifest(path);

  function textFor(hash: string): string {
    const text = texts.get(hash);
    if (text !== undefined) return text;
    throw new AegisError(mode === 'off' ? 'PERSISTED_QUERY_NOT_SUPPORTED' : 'PERSISTED_QUERY_NOT_FOUND');
  }

  return {
    textOf(params) {
      const hash = hashIn(params);
      const { query } = params;
      if (query === '' || query === undefined || query === null) return hash === null ? undefined : textFor(hash);
      if (hash !== null && hashOf(query) !== hash)
        throw new AegisError('BAD_USER_INPUT', 'The id of the document is not that of its text');
      if (mode === 'only' && !texts.has(hash ?? hashOf(query))) throw new AegisError('DOCUMENT_NOT_ALLOWED');
      return query;
    },
  };
}

/** Null where there is none. */
function hashIn({ documentId, extensions }: DocumentParams): string | null {
  if (documentId !== undefined && documentId !== null) return hashInId(documentId);
  const isPersisted = typeof extensions === 'object' && extensions !== null && 'persistedQuery' in extensions;
  if (!isPersisted) return null;
  const { success, data } = persistedQuerySchema.safeParse(extensions);
  if (success && soundHash.test(data.persistedQuery.sha256Hash)) return data.persistedQuery.sha256Hash;
  throw new AegisError('BAD_USER_INPUT', '`persistedQuery` must have version 1 and the SHA-256 in lower-case hex');
}

function hashInId(id: unknown): string {
  const hash = typeof id === 'string' && id.startsWith('sha256:') ? id.slice('sha256:'.length) : '';
  if (soundHash.test(hash)) return hash;
  throw new AegisError('BAD_USER_INPUT', '`documentId` must be sha256: and the SHA-256 in lower-case hex');
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** A hash that is not that of its text would let through what nobody has looked at. */
function readManifest(path: string): Map<string, string> {
  const entries = Object.entries(parseManifest(path));
  return new Map(
    entries.map(([id, text]) => {
      const hash = hashOf(text);
      if (id !== hash && id !== `sha256:${hash}`)
        throw new DocumentsError(`${path}: ${id} is not the SHA-256 of its text`);
      return [hash, text];
    }),
  );
}

function parseManifest(path: string): z.infer<typeof manifestSchema> {
  try {
    return manifestSchema.parse(JSON.parse(readFileSync(path, 'utf8')));
  } catch (error) {
    throw new DocumentsError(`${path} is no JSON object of hashes and documents`, { cause: error });
  }
}
