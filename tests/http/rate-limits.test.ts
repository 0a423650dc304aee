import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { maxFailures, windowSeconds } from '../../src/access/rate-limits.ts';
import { makeKey } from '../access/stage.ts';
import { openRawSubscriber } from '../streams/raw-subscriber.ts';
import { eventually } from '../support/eventually.ts';
import { startTestGateway, type TestGateway } from '../support/gateway.ts';

const perSecond = 1;
const inWindow = perSecond * windowSeconds;

/** A request of a client of its own beyond a proxy, so that what one test asks is not counted against another. */
type Ask = (address: string, path: string, init?: Parameters<TestGateway['fetch']>[1]) => Promise<Response>;
const from = (gateway: TestGateway): Ask => {
  return (address, path, { headers, ...init } = {}) =>
    gateway.fetch(path, {
      ...init,
      headers: { ...Object.fromEntries(new Headers(headers)), 'x-forwarded-for': address },
    });
};
const query = (text: string) => ({
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ query: text }),
});

function upgradeFrom(gateway: TestGateway, address: string): Promise<{ status: number; retryAfter: string | null }> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(gateway.subscriptionUrl, 'graphql-transport-ws', {
      headers: { 'x-forwarded-for': address },
    });
    socket.on('open', () => {
      socket.terminate();
      resolve({ status: 101, retryAfter: null });
    });
    socket.on('unexpected-response', (_request, response) => {
      resolve({ status: response.statusCode ?? 0, retryAfter: response.headers['retry-after'] ?? null });
      socket.terminate();
    });
    socket.on('error', reject);
  });
}

/** Seconds in `Retry-After`: within the window that was counted in. */
function expectSeconds(text: string | null): void {
  expect(text).toMatch(/^\d+$/);
  expect(Number(text)).toBeGreaterThanOrEqual(1);
  expect(Number(text)).toBeLessThanOrEqual(windowSeconds);
}

describe('an address that asks too often', () => {
  let gateway: TestGateway;
  let ask: Ask;
  beforeAll(async () => {
    gateway = await startTestGateway({
      env: { RATE_LIMIT_ADDRESS: String(perSecond), RATE_LIMIT_CONSUMER: 'off', TRUST_PROXY: '127.0.0.1' },
    });
    ask = from(gateway);
  });
  afterAll(() => gateway.stop());

  /** The first answer beyond the limit; all before it had another status. */
  async function firstBeyond(address: string, path: string, init?: Parameters<Ask>[2]): Promise<Response> {
    for (let left = inWindow; left > 0; left--) {
      const answer = await ask(address, path, init);
      await answer.arrayBuffer();
      expect(answer.status).not.toBe(429);
    }
    return ask(address, path, init);
  }

  test.each([
    ['/api/v1/agents/nobody/status', '192.0.2.1'],
    ['/openapi.json', '192.0.2.2'],
    ['/metrics', '192.0.2.3'],
  ])('is told so by %s with a problem', async (path, address) => {
    const answer = await firstBeyond(address, path);
    expect(answer.status).toBe(429);
    expect(answer.headers.get('content-type')).toBe('application/problem+json');
    expectSeconds(answer.headers.get('retry-after'));
    expect(await answer.json()).toMatchObject({ code: 'RATE_LIMITED', retryable: true });
    // Whoever comes from elsewhere is heard.
    expect((await ask('192.0.2.99', path)).status).not.toBe(429);
  });

  test.each([
    ['GET', '/agents', '192.0.2.4'],
    ['POST', '/agents/register/init', '192.0.2.5'],
    ['POST', '/agents/register/complete', '192.0.2.6'],
  ])('is told so by %s %s in plain text', async (method, path, address) => {
    const body = method === 'POST' ? { body: '{}' } : {};
    const answer = await firstBeyond(address, path, { method, ...body });
    expect(answer.status).toBe(429);
    expect(answer.headers.get('content-type')).toBe('text/plain; charset=utf-8');
    expectSeconds(answer.headers.get('retry-after'));
    expect(await answer.text()).toBe('Too many requests; come back later');
  });

  test('is told so by GraphQL with an error', async () => {
    const answer = await firstBeyond('192.0.2.7', '/graphql', query('{ __typename }'));
    expect(answer.status).toBe(429);
    expectSeconds(answer.headers.get('retry-after'));
    const { errors } = await answer.json();
    expect(errors).toEqual([
      {
        message: 'Too many requests; come back later',
        extensions: { code: 'RATE_LIMITED', retryAfterMs: expect.any(Number) },
      },
    ]);
  });

  test('gets no WebSocket either', async () => {
    for (let left = inWindow; left > 0; left--) expect((await upgradeFrom(gateway, '192.0.2.8')).status).toBe(101);
    const { status, retryAfter } = await upgradeFrom(gateway, '192.0.2.8');
    expect(status).toBe(429);
    expectSeconds(retryAfter);
  });

  test('still learns whether the gateway lives', async () => {
    await firstBeyond('192.0.2.9', '/openapi.json');
    for (const path of ['/healthz', '/readyz']) expect((await ask('192.0.2.9', path)).status).toBe(200);
  });
});

test('a consumer that asks too often is told so over every transport, on whatever address it comes', async () => {
  const gateway = await startTestGateway({
    env: { RATE_LIMIT_ADDRESS: 'off', RATE_LIMIT_CONSUMER: String(perSecond), TRUST_PROXY: '127.0.0.1' },
  });
  try {
    const ask = from(gateway);
    const subscriber = await openRawSubscriber(gateway.url, gateway.token);
    for (let number = 1; number < inWindow; number++)
      expect((await ask(`192.0.2.${number}`, '/graphql', query('{ __typename }'))).status).toBe(200);
    subscriber.subscribe('last', '{ __typename }');
    expect(await eventually(() => subscriber.messages.find(({ id }) => id === 'last'))).toMatchObject({ type: 'next' });

    subscriber.subscribe('beyond', 'subscription { presence { connected } }');
    expect(await eventually(() => subscriber.messages.find(({ id }) => id === 'beyond'))).toMatchObject({
      type: 'error',
      payload: [{ extensions: { code: 'RATE_LIMITED', retryAfterMs: expect.any(Number) } }],
    });
    subscriber.socket.terminate();
    const stream = { ...query('subscription { presence { connected } }') };
    const overSse = await ask('192.0.2.1', '/graphql', {
      ...stream,
      headers: { ...stream.headers, accept: 'text/event-stream' },
    });
    expect(overSse.status).toBe(429);
    const overRest = await ask('192.0.2.1', '/api/v1/agents/nobody/status');
    expect(overRest.status).toBe(429);
    expectSeconds(overRest.headers.get('retry-after'));
    expect((await ask('192.0.2.1', '/agents')).status).toBe(429);
  } finally {
    await gateway.stop();
  }
});

test('an operation counts as often as it has mutations, on every transport, and is done as a whole or not at all', async () => {
  const gateway = await startTestGateway({ env: { RATE_LIMIT_CONSUMER: String(perSecond) } });
  const create = (note: string) =>
    `${note}: createEnrollmentToken(input: { expiresIn: 60, note: "${note}" }) { token }`;
  const mutations = (number: number, name: string) =>
    `mutation { ...M } fragment M on Mutation { ${Array.from({ length: number }, (_, at) => create(`${name}${at}`)).join(' ')} }`;
  const newKey = async () => (await makeKey(gateway, { scopes: ['admin'], orgId: 'default-org' })).key;
  try {
    const within = { ...query(mutations(inWindow, 'within')), authorization: `Bearer ${await newKey()}` };
    expect(await (await gateway.fetch('/graphql', within)).json()).not.toHaveProperty('errors');

    const beyond = { ...query(mutations(inWindow + 1, 'beyond')), authorization: `Bearer ${await newKey()}` };
    const answer = await gateway.fetch('/graphql', beyond);
    expect(answer.status).toBe(429);
    expectSeconds(answer.headers.get('retry-after'));
    expect(await answer.json()).toMatchObject({ errors: [{ extensions: { code: 'RATE_LIMITED' } }] });

    const subscriber = await openRawSubscriber(gateway.url, await newKey());
    subscriber.subscribe('beyond', mutations(inWindow + 1, 'socket'));
    expect(await eventually(() => subscriber.messages.find(({ id }) => id === 'beyond'))).toMatchObject({
      type: 'error',
      payload: [{ extensions: { code: 'RATE_LIMITED' } }],
    });
    subscriber.socket.terminate();

    const listed = await gateway.fetch('/graphql', query('{ enrollmentTokens(first: 100) { nodes { note } } }'));
    const notes = JSON.stringify(await listed.json()).match(/(within|beyond|socket)(?=\d)/g);
    expect(notes).toEqual(Array.from({ length: inWindow }, () => 'within'));
  } finally {
    await gateway.stop();
  }
});

test(`an address that shows more than ${maxFailures} wrong credentials is told to come back, and heard with good ones`, async () => {
  const gateway = await startTestGateway({ env: { TRUST_PROXY: '127.0.0.1' } });
  try {
    const ask = from(gateway);
    const wrong = { authorization: 'Bearer wrong' };
    const routes = ['/graphql?query={__typename}', '/agents', '/api/v1/agents/nobody/status', '/metrics'];
    for (let number = 0; number < maxFailures; number++)
      expect((await ask('192.0.2.1', routes[number % routes.length] ?? '', wrong)).status).toBe(401);
    for (const path of routes) expect((await ask('192.0.2.1', path, wrong)).status).toBe(429);
    expect((await ask('192.0.2.1', '/agents')).status).toBe(200);
    expect((await ask('192.0.2.2', '/agents', wrong)).status).toBe(401);
  } finally {
    await gateway.stop();
  }
});
