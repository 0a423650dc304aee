const anyOf = (...names) => `^src/(${names.join('|')})/`;
/** Pure codecs and their channel names: anyone may use them. */
const wire = '^src/agent-gateway/wire/';

/** The import rules of docs/ARCHITECTURE.md. */
module.exports = {
  forbidden: [
    {
      name: 'no-cycles',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'wire-and-crypto-stand-alone',
      severity: 'error',
      from: { path: '^src/agent-gateway/(wire|crypto)/' },
      to: { path: '^src/', pathNot: '^src/agent-gateway/(wire|crypto)/' },
    },
    {
      name: 'wire-is-pure',
      severity: 'error',
      from: { path: wire },
      to: { dependencyTypes: ['core', 'npm'] },
    },
    {
      // Agents elsewhere than on Node use the rest.
      name: 'only-native-crypto-needs-node',
      severity: 'error',
      from: { path: '^src/agent-gateway/crypto/', pathNot: '^src/agent-gateway/crypto/native.ts$' },
      to: { dependencyTypes: ['core'] },
    },
    {
      name: 'parts-know-no-socket-no-graphql-no-http',
      severity: 'error',
      from: { path: anyOf('access', 'audit', 'fleet', 'events', 'messages', 'bus', 'db') },
      to: {
        path: [
          '^src/(agent-gateway|schema|rest|http|commands)/',
          'node_modules/(ws|graphql|graphql-yoga|hono|@hono)/',
          '^(node:)?https?$',
        ],
        pathNot: wire,
      },
    },
    {
      name: 'edges-do-not-know-each-other',
      severity: 'error',
      from: { path: '^src/(agent-gateway|schema|rest)/' },
      to: { path: '^src/(agent-gateway|schema|rest)/', pathNot: ['^src/$1/', wire] },
    },
    {
      name: 'agent-client-is-an-agent',
      severity: 'error',
      from: { path: '^src/agent-client/' },
      to: { path: '^src/', pathNot: ['^src/agent-client/', '^src/agent-gateway/(wire|crypto)/'] },
    },
    {
      name: 'only-its-node-part-needs-node',
      severity: 'error',
      from: { path: '^src/agent-client/v2/', pathNot: '^src/agent-client/v2/node/' },
      to: {
        path: ['^src/agent-client/v2/node/', '^src/agent-gateway/crypto/native.ts$', 'node_modules/(?!@noble/)'],
      },
    },
    {
      name: 'the-portable-agent-imports-nothing-of-node',
      severity: 'error',
      from: { path: '^src/agent-client/v2/', pathNot: '^src/agent-client/v2/node/' },
      to: { dependencyTypes: ['core'] },
    },
    {
      name: 'consumer-client-is-a-consumer',
      severity: 'error',
      from: { path: '^src/consumer-client/' },
      to: { path: '^src/', pathNot: '^src/consumer-client/' },
    },
    {
      name: 'only-commands-know-the-gateway',
      severity: 'error',
      from: { path: '^src/', pathNot: ['^src/commands/', '^src/main.ts$'] },
      to: { path: ['^src/gateway.ts$', '^src/commands/'], pathNot: '^src/commands/' },
    },
    {
      name: 'only-db-opens-databases',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/db/' },
      to: { path: 'node_modules/(@electric-sql|drizzle-orm)/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    // TypeScript 7 has no compiler API; without another parser every check would pass on nothing.
    parser: 'swc',
    enhancedResolveOptions: { extensions: ['.ts', '.js'], conditionNames: ['import', 'node', 'types', 'default'] },
  },
};
