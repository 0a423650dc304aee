import { HTTPException } from 'hono/http-exception';
import { describe, expect, it } from 'vitest';
import { adminToken } from '../../src/access/consumer.ts';
import { createRateLimits } from '../../src/access/rate-limits.ts';
import { AegisError } from '../../src/errors.ts';
import { createFamily, inputError } from '../../src/rest/environment.ts';
import { plainTextResponse, problemResponse } from '../../src/rest/error-responses.ts';
import { createOperationsRoutes } from '../../src/rest/operations-routes.ts';

const origin = { requestId: 'request-1', clientAddress: '192.0.2.1', traceparent: null };

/** A family whose only route throws, what it logged, and what it answers. */
async function answerTo(thrown: Error, response: typeof problemResponse) {
  const logged: unknown[] = [];
  const app = createFamily({ response, rejection: inputError }, (error, context, requestId) =>
    logged.push({ error, context, requestId }),
  );
  app.get('/thrown/:id', () => {
    throw thrown;
  });
  const answer = await app.request('/thrown/a%20b?secret=1', {}, origin);
  return { logged, status: answer.status, headers: answer.headers, text: await answer.text() };
}

describe('an unforeseen error', () => {
  const unforeseen = new Error('password=hunter2');

  it('is masked in a problem, and logged with its cause', async () => {
    const { logged, status, text } = await answerTo(unforeseen, problemResponse);
    expect(JSON.parse(text)).toEqual({
      type: 'urn:aegis:error:INTERNAL_SERVER_ERROR',
      title: 'Something went wrong here',
      status: 500,
      detail: 'Something went wrong here',
      instance: '/thrown/a%20b',
      code: 'INTERNAL_SERVER_ERROR',
      retryable: true,
    });
    expect(status).toBe(500);
    expect(logged).toEqual([{ error: unforeseen, context: 'GET /thrown/a%20b failed', requestId: 'request-1' }]);
  });

  it('is masked as plain text', async () => {
    const { status, text } = await answerTo(unforeseen, plainTextResponse);
    expect({ status, text }).toEqual({ status: 500, text: 'Something went wrong here' });
  });

  it('is masked as well where it calls itself internal', async () => {
    const internal = new AegisError('INTERNAL_SERVER_ERROR', 'password=hunter2');
    const { logged, text } = await answerTo(internal, plainTextResponse);
    expect(text).toBe('Something went wrong here');
    expect(logged).toHaveLength(1);
  });
});

describe('a foreseen error', () => {
  it('is told with its detail, and not logged', async () => {
    const { logged, status, text } = await answerTo(new AegisError('BAD_USER_INPUT', 'channel: …'), problemResponse);
    expect(JSON.parse(text)).toMatchObject({ title: 'The input is not valid', detail: 'channel: …', status: 400 });
    expect({ logged, status }).toEqual({ logged: [], status: 400 });
  });

  it.each(['QUEUE_FULL', 'UNAVAILABLE'] as const)('says with %s when to come again', async (code) => {
    const { headers } = await answerTo(new AegisError(code), problemResponse);
    expect(headers.get('retry-after')).toBe('1');
  });

  it('asks for credentials only where they are missing, not where a signature is wrong', async () => {
    const missing = await answerTo(new AegisError('UNAUTHENTICATED'), plainTextResponse);
    expect(missing.headers.get('www-authenticate')).toBe('Bearer');
    const wrong = await answerTo(new AegisError('SIGNATURE_VERIFY_FAILED'), plainTextResponse);
    expect(wrong.headers.get('www-authenticate')).toBeNull();
  });

  it('of the framework about a request is bad input', async () => {
    const { logged, status } = await answerTo(new HTTPException(415, { message: 'no' }), problemResponse);
    expect({ logged, status }).toEqual({ logged: [], status: 400 });
  });
});

describe('operations of a gateway in trouble', () => {
  const app = createOperationsRoutes(
    {
      authenticate: () => adminToken,
      rateLimits: createRateLimits({ consumerPerSecond: null, addressPerSecond: null }, null),
      readiness: async () => ({ ready: false, checks: { database: 'ok', gateway: 'stopping' }, warnings: [] }),
      metrics: () => Promise.reject(new Error('no metrics')),
      logError: () => {},
    },
    () => ({}),
  );

  it('GET /readyz answers 503 and what is wrong', async () => {
    const answer = await app.request('/readyz');
    expect(answer.status).toBe(503);
    expect(await answer.json()).toEqual({ ready: false, checks: { database: 'ok', gateway: 'stopping' } });
  });

  it('GET /healthz still answers 200', async () => {
    expect((await app.request('/healthz')).status).toBe(200);
  });

  it('GET /metrics that fails is a masked problem', async () => {
    const answer = await app.request('/metrics', {}, origin);
    expect(answer.status).toBe(500);
    expect(await answer.json()).toMatchObject({ code: 'INTERNAL_SERVER_ERROR', detail: 'Something went wrong here' });
  });
});
