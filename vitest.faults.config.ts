import { defineConfig } from 'vitest/config';

/** `npm run test:faults`: does harm to gateways and to all that they depend on (docs/RELIABILITY.md). */
export default defineConfig({
  test: {
    include: ['tests/matrix/**/*.test.ts'],
    globalSetup: ['tests/crash/global-setup.ts'],
    pool: 'forks',
    bail: 1,
    testTimeout: 180_000,
    hookTimeout: 90_000,
  },
});
