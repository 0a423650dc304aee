import { defineConfig } from 'vitest/config';

/** `npm run test:crash`: kills gateways and databases of its own, one fault after the other (docs/RELIABILITY.md). */
export default defineConfig({
  test: {
    include: ['tests/crash/**/*.test.ts'],
    globalSetup: ['tests/crash/global-setup.ts'],
    pool: 'forks',
    // Faults build on each other: what is broken by one says nothing of the next.
    bail: 1,
    testTimeout: 90_000,
    hookTimeout: 90_000,
  },
});
