import { configDefaults, defineConfig } from 'vitest/config';

export default defineConfig({
  // Two copies of graphql, CommonJS and not, do not know each other's schemas.
  resolve: { alias: [{ find: /^graphql$/, replacement: 'graphql/index.js' }] },
  test: {
    include: ['tests/**/*.test.ts'],
    // `npm run test:crash`, `npm run test:faults`
    exclude: [...configDefaults.exclude, 'tests/crash/**', 'tests/matrix/**'],
    globalSetup: ['tests/support/global-setup.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 90_000,
  },
});
