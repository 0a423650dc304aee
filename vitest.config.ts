import { configDefaults, defineConfig } from 'vitest/config';

/** Several gateways, most of them processes, which take their time: `npm run test:deploy`. */
export const deployments = [
  'tests/deploy/{image,rolling-restart,storm,topology}.test.ts',
  'tests/instances/pair.test.ts',
  'tests/workers/workers.test.ts',
];

export default defineConfig({
  // Two copies of graphql, CommonJS and not, do not know each other's schemas.
  resolve: { alias: [{ find: /^graphql$/, replacement: 'graphql/index.js' }] },
  test: {
    include: ['tests/**/*.test.ts'],
    // `npm run test:crash` and `npm run test:faults`
    exclude: [...configDefaults.exclude, ...deployments, 'tests/crash/**', 'tests/matrix/**'],
    globalSetup: ['tests/support/global-setup.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 90_000,
  },
});
