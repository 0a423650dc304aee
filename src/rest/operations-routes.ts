import { createRoute, z } from '@hono/zod-openapi';
import { countAddress, needing, openSecurity, requireCredentials } from './credentials.ts';
import { createFamily, type ErrorWording, inputError, type RestApp } from './environment.ts';
import { problemResponse, problemResponses } from './error-responses.ts';
import { refuseOtherMethods } from './methods.ts';
import type { RestServices } from './services.ts';

const readinessSchema = z
  .object({
    ready: z.boolean(),
    checks: z.record(z.string(), z.string()),
    warnings: z
      .array(z.string())
      .optional()
      .openapi({ description: 'What does no harm yet; absent where nothing is.' }),
  })
  .openapi('Readiness');

const readinessContent = { 'application/json': { schema: readinessSchema } };

const healthRoute = createRoute({
  method: 'get',
  path: '/healthz',
  operationId: 'getHealth',
  summary: 'Whether the process lives',
  tags: ['operations'],
  security: openSecurity,
  responses: {
    200: {
      description: 'It does',
      content: { 'application/json': { schema: z.object({ status: z.literal('ok') }).openapi('Health') } },
    },
  },
});

const readinessRoute = createRoute({
  method: 'get',
  path: '/readyz',
  operationId: 'getReadiness',
  summary: 'Whether the gateway can serve',
  tags: ['operations'],
  security: openSecurity,
  responses: {
    200: { description: 'It can', content: readinessContent },
    503: { description: 'It cannot, or is about to stop', content: readinessContent },
    ...problemResponses('INTERNAL_SERVER_ERROR'),
  },
});

const metricsRoute = createRoute({
  method: 'get',
  path: '/metrics',
  operationId: 'getMetrics',
  summary: 'Metrics for Prometheus',
  tags: ['operations'],
  ...needing('operator'),
  responses: {
    200: { description: 'The text format of Prometheus', content: { 'text/plain': { schema: z.string() } } },
    ...problemResponses('UNAUTHENTICATED', 'FORBIDDEN', 'RATE_LIMITED', 'INTERNAL_SERVER_ERROR'),
  },
});

const openApiRoute = createRoute({
  method: 'get',
  path: '/openapi.json',
  operationId: 'getOpenApi',
  summary: 'This document',
  tags: ['operations'],
  security: openSecurity,
  responses: {
    200: {
      description: 'OpenAPI 3.1',
      content: { 'application/json': { schema: z.record(z.string(), z.unknown()).openapi('OpenApiDocument') } },
    },
    ...problemResponses('RATE_LIMITED'),
  },
});

const wording: ErrorWording = { response: problemResponse, rejection: inputError };

/** What those who run the gateway ask. `openApiDocument` is asked for once a request. */
export function createOperationsRoutes(
  {
    authenticate,
    rateLimits,
    readiness,
    metrics,
    logError,
  }: Pick<RestServices, 'authenticate' | 'rateLimits' | 'readiness' | 'metrics' | 'logError'>,
  openApiDocument: () => Record<string, unknown>,
): RestApp {
  const app = createFamily(wording, logError);

  app.openapi(healthRoute, (c) => c.json({ status: 'ok' as const }, 200));

  app.openapi(readinessRoute, async (c) => {
    const { ready, checks, warnings } = await readiness();
    const answer = { ready, checks: { ...checks }, ...(warnings.length > 0 ? { warnings: [...warnings] } : {}) };
    return c.json(answer, ready ? 200 : 503);
  });

  app.use('/metrics', requireCredentials({ authenticate, rateLimits }));
  app.openapi(metricsRoute, async (c) => {
    const { contentType, body } = await metrics();
    return c.text(body, 200, { 'Content-Type': contentType });
  });

  app.use('/openapi.json', countAddress(rateLimits));
  app.openapi(openApiRoute, (c) => c.json(openApiDocument(), 200));

  refuseOtherMethods(app, wording);
  return app;
}
