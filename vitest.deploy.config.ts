import { defineConfig } from 'vitest/config';
import base, { deployments } from './vitest.config.ts';

/** `npm run test:deploy`: gateways as they are deployed, several on one database, behind a balancer, in several processes. */
export default defineConfig({ ...base, test: { ...base.test, include: deployments, exclude: [] } });
