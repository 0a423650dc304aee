import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { startTestGateway, type TestGateway } from '../support/gateway.ts';
import { ask, makeKey, revokeKey, subscribed } from './stage.ts';
import { audience, issuer, issuerKey, signToken } from './tokens.ts';

const key = issuerKey('one');
const directory = mkdtempSync(join(tmpdir(), 'aegis-endings-'));
const path = join(directory, 'public.pem');
writeFileSync(path, key.pem);
const env = { JWT_PUBLIC_KEY_PATH: path, JWT_ISSUER: issuer, JWT_AUDIENCE: audience };
const events = 'subscription { events { ... on Event { cursor } } }';

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await startTestGateway({ env });
});
afterAll(async () => {
  await gateway.stop();
  rmSync(directory, { recursive: true });
});

const streaming = async (of: TestGateway) => {
  const text = await (await of.fetch('/metrics')).text();
  return Number(/^aegis_subscriptions (\d+)/m.exec(text)?.[1]);
};

/** A subscription over Server-Sent Events that has begun, and its whole text, once it has ended. */
async function streamed(token: string): Promise<{ readonly text: Promise<string> }> {
  const response = await gateway.fetch('/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
    body: JSON.stringify({ query: events }),
    authorization: `Bearer ${token}`,
  });
  expect(response.status).toBe(200);
  return { text: response.text() };
}

const lastWords =
  'event: next\ndata: {"errors":[{"message":"Credentials are missing or not valid","extensions":{"code":"UNAUTHENTICATED"}}]}\n\nevent: complete\ndata:\n\n';

describe('a live subscription', () => {
  it('ends with 4403 when its key is revoked', async () => {
    const { key: apiKey, id } = await makeKey(gateway, { scopes: ['events:read'], orgId: 'acme' });
    const other = await makeKey(gateway, { scopes: ['events:read'], orgId: 'acme' });
    const ended = subscribed(gateway, apiKey, events);
    const going = subscribed(gateway, other.key, events);
    await Promise.all([ended.open, going.open]);
    await eventually(async () => (await streaming(gateway)) === 2);
    await revokeKey(gateway, id);
    expect(await ended.closed).toBe(4403);
    await eventually(async () => (await streaming(gateway)) === 1);
    await revokeKey(gateway, other.id);
    expect(await going.closed).toBe(4403);
  });

  it('ends with 4403 when its key expires', async () => {
    const { key: apiKey } = await makeKey(gateway, { scopes: ['events:read'], orgId: 'acme', expiresIn: 2 });
    const { open, closed } = subscribed(gateway, apiKey, events);
    await open;
    expect(await closed).toBe(4403);
  });

  it('ends with 4403 when its token expires', async () => {
    const exp = Math.floor(Date.now() / 1_000) + 2;
    const { open, closed } = subscribed(gateway, await signToken(key, { exp, scope: 'events:read' }), events);
    await open;
    expect(await closed).toBe(4403);
    expect(Date.now()).toBeGreaterThanOrEqual(exp * 1_000);
  });

  it('ends with 4403 when the key that signed its token is exchanged at SIGHUP', async () => {
    const { open, closed } = subscribed(gateway, await signToken(key, { scope: 'events:read' }), events);
    const { key: apiKey, id } = await makeKey(gateway, { scopes: ['events:read'], orgId: 'acme' });
    const going = subscribed(gateway, apiKey, events);
    await Promise.all([open, going.open]);
    gateway.reload();
    await eventually(async () => (await streaming(gateway)) === 2);
    writeFileSync(path, issuerKey('two').pem);
    gateway.reload();
    expect(await closed).toBe(4403);
    expect(await streaming(gateway)).toBe(1);
    writeFileSync(path, key.pem);
    gateway.reload();
    await revokeKey(gateway, id);
    expect(await going.closed).toBe(4403);
  });

  it('over Server-Sent Events ends with UNAUTHENTICATED when its key is revoked', async () => {
    const { key: apiKey, id } = await makeKey(gateway, { scopes: ['events:read'], orgId: 'acme' });
    const { text } = await streamed(apiKey);
    await revokeKey(gateway, id);
    expect((await text).endsWith(lastWords)).toBe(true);
  });

  it('over Server-Sent Events ends with UNAUTHENTICATED when its token expires', async () => {
    const exp = Math.floor(Date.now() / 1_000) + 2;
    const { text } = await streamed(await signToken(key, { exp, scope: 'events:read' }));
    expect((await text).endsWith(lastWords)).toBe(true);
  });

  it('of a socket that only asks questions ends as well', async () => {
    const { key: apiKey, id } = await makeKey(gateway, { scopes: ['events:read'], orgId: 'acme' });
    const { open, closed } = subscribed(gateway, apiKey, '{ __typename }');
    await open;
    await revokeKey(gateway, id);
    expect(await closed).toBe(4403);
  });

  it('leaves nothing behind that watches over its credentials', async () => {
    const { key: apiKey } = await makeKey(gateway, { scopes: ['events:read'], orgId: 'acme' });
    const before = gateway.statements.length;
    const { open, closed } = subscribed(gateway, apiKey, events);
    await open;
    const looks = () => gateway.statements.slice(before).filter((text) => /select id from api_keys/.test(text)).length;
    await eventually(() => looks() > 0);
    await gateway.restart();
    expect([1000, 1005, 1006, 1012]).toContain(await closed);
  });
});

describe.skipIf(!hasPostgres())('on another gateway', () => {
  it.each(['with Redis', 'without Redis'])('a live subscription ends with 4403 too, %s', async (way) => {
    const redisUrl = inject('redisUrl');
    const shared = { ...env, ...(way === 'with Redis' && redisUrl ? { REDIS_URL: redisUrl } : {}) };
    const one = await startTestGateway({ env: shared });
    const other = await startTestGateway({ env: shared, databaseUrl: one.databaseUrl ?? '' });
    try {
      const { key: apiKey, id } = await makeKey(one, { scopes: ['events:read'], orgId: 'acme' });
      const { open, closed } = subscribed(other, apiKey, events);
      await open;
      expect((await ask(other, '{ __typename }', {}, apiKey)).status).toBe(200);
      await revokeKey(one, id);
      expect(await closed).toBe(4403);
      await eventually(async () => (await ask(other, '{ __typename }', {}, apiKey)).status === 401, 10_000);
    } finally {
      await other.stop();
      await one.stop();
    }
  });
});
