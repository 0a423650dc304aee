import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { startTestGateway, type TestGateway } from '../support/gateway.ts';
import { ask, makeKey, revokeKey } from './stage.ts';

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await startTestGateway();
});
afterAll(() => gateway.stop());

const create =
  'mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { key apiKey { orgId scopes createdBy } } }';
const list =
  '{ apiKeys { totalCount nodes { id name prefix orgId scopes state createdBy expiresAt lastUsedAt revokedAt } } }';
const listed = z.object({
  apiKeys: z.object({
    totalCount: z.number(),
    nodes: z.array(z.looseObject({ id: z.string(), name: z.string(), orgId: z.string().nullable() })),
  }),
});

const keys = async (token?: string) => listed.parse((await ask(gateway, list, {}, token)).data).apiKeys;
const codesOf = async (query: string, input: object, token?: string) =>
  ((await ask(gateway, query, { input }, token)).errors ?? []).map((error) => error.extensions.code);

describe('an API key', () => {
  it('is shown once, and listed by its prefix and never by its secret', async () => {
    const { key, id } = await makeKey(gateway, {
      name: 'console',
      scopes: ['agents:read'],
      orgId: 'acme',
      expiresIn: 60,
    });
    expect(key).toMatch(/^agk_[0-9a-f]{12}_[\w-]{43}$/);
    const found = (await keys()).nodes.find((node) => node.id === id);
    expect(found).toEqual({
      ...{ id, name: 'console', prefix: key.slice(0, 16), orgId: 'acme', scopes: ['agents:read'], state: 'USABLE' },
      ...{ createdBy: 'ADMIN_TOKEN', expiresAt: expect.any(String), lastUsedAt: null, revokedAt: null },
    });
    expect(JSON.stringify(await keys())).not.toContain(key.slice(17));
  });

  it.skipIf(!hasPostgres())('is stored as a hash alone', async () => {
    const { key, id } = await makeKey(gateway, { scopes: ['admin'], orgId: 'acme' });
    const [row] = await gateway.sql`select to_jsonb(api_keys) as row from api_keys where id = ${id}`;
    expect(JSON.stringify(row)).not.toContain(key.slice(17));
  });

  it('lets in who has it, and nobody who has another secret under its prefix', async () => {
    const { key } = await makeKey(gateway, { scopes: ['agents:read'], orgId: 'acme' });
    expect(await ask(gateway, '{ agents { totalCount } }', {}, key)).toEqual({
      status: 200,
      data: { agents: { totalCount: 0 } },
    });
    for (const wrong of [
      `${key.slice(0, -1)}${key.endsWith('A') ? 'B' : 'A'}`,
      key.slice(0, -1),
      `${key}A`,
      key.slice(0, 16),
    ])
      expect((await ask(gateway, '{ __typename }', {}, wrong)).status).toBe(401);
  });

  it('lets nobody in once it is revoked, and is revoked once for all', async () => {
    const { key, id } = await makeKey(gateway, { scopes: ['agents:read'], orgId: 'acme' });
    expect((await ask(gateway, '{ __typename }', {}, key)).status).toBe(200);
    await revokeKey(gateway, id);
    expect((await ask(gateway, '{ __typename }', {}, key)).status).toBe(401);
    const before = (await keys()).nodes.find((node) => node.id === id);
    await revokeKey(gateway, id);
    expect((await keys()).nodes.find((node) => node.id === id)).toEqual(before);
    expect(before).toMatchObject({ state: 'REVOKED' });
  });

  it('lets nobody in once it has expired', async () => {
    const { key, id } = await makeKey(gateway, { scopes: ['agents:read'], orgId: 'acme', expiresIn: 1 });
    await eventually(async () => (await ask(gateway, '{ __typename }', {}, key)).status === 401);
    expect((await keys()).nodes.find((node) => node.id === id)).toMatchObject({ state: 'EXPIRED' });
  });

  it.skipIf(!hasPostgres())('is looked up once for many requests, and not once each for many wrong ones', async () => {
    const { key } = await makeKey(gateway, { scopes: ['agents:read'], orgId: 'acme' });
    const lookups = () => gateway.statements.filter((text) => text.includes('key_hash =')).length;
    for (const token of [key, `agk_${'0'.repeat(12)}_${'x'.repeat(43)}`]) {
      const before = lookups();
      await Promise.all(Array.from({ length: 10 }, () => ask(gateway, '{ __typename }', {}, token)));
      await ask(gateway, '{ __typename }', {}, token);
      expect(lookups() - before).toBeLessThan(3);
    }
    const before = lookups();
    for (const garbage of ['agk_', 'agk_x', `agk_${'g'.repeat(12)}_${'x'.repeat(43)}`])
      await ask(gateway, '{ __typename }', {}, garbage);
    expect(lookups()).toBe(before);
  });

  it('tells when it was last used, which is written with the end of the gateway at the latest', async () => {
    const own = await startTestGateway();
    const { key, id } = await makeKey(own, { scopes: ['agents:read'], orgId: 'acme' });
    await ask(own, '{ __typename }', {}, key);
    if (own.databaseUrl) {
      await own.restart();
      const [row] = await own.sql`select last_used_at from api_keys where id = ${id}`;
      expect(row?.last_used_at).toBeInstanceOf(Date);
    }
    await own.stop();
  });
});

describe('administrators', () => {
  it('of one organisation make keys of their own alone, and see no others', async () => {
    const { key } = await makeKey(gateway, { scopes: ['admin'], orgId: 'globex' });
    const { id: foreign } = await makeKey(gateway, { scopes: ['admin'], orgId: 'acme' });
    const { id: everywhere } = await makeKey(gateway, { scopes: ['agents:read'], allOrganisations: true });
    const own = await ask(gateway, create, { input: { name: 'n', scopes: ['admin'] } }, key);
    expect(own.data).toMatchObject({
      createApiKey: { apiKey: { orgId: 'globex', createdBy: expect.stringMatching(/^test \(agk_\w+\)$/) } },
    });
    for (const input of [{ orgId: 'acme' }, { allOrganisations: true }])
      expect(await codesOf(create, { name: 'n', scopes: ['agents:read'], ...input }, key)).toEqual(['FORBIDDEN']);
    expect(new Set((await keys(key)).nodes.map(({ orgId }) => orgId))).toEqual(new Set(['globex']));
    expect((await keys(key)).totalCount).toBe(2);
    for (const id of [foreign, everywhere, '00000000-0000-4000-8000-000000000000', 'nonsense']) {
      const revoked = await ask(gateway, 'mutation ($id: ID!) { revokeApiKey(id: $id) { id } }', { id }, key);
      expect(revoked.errors?.[0]?.extensions.code).toBe('NOT_FOUND');
    }
  });

  it('of all organisations are those alone to whom both was given', async () => {
    const { key } = await makeKey(gateway, { scopes: ['agents:manage'], allOrganisations: true });
    expect(await codesOf(create, { name: 'n', scopes: ['agents:read'] }, key)).toEqual(['FORBIDDEN']);
    const admin = await makeKey(gateway, { scopes: ['admin'], allOrganisations: true });
    expect(await codesOf(create, { name: 'n', scopes: ['admin'], allOrganisations: true }, admin.key)).toEqual([]);
  });

  it('give the default organisation where they name none', async () => {
    const { data } = await ask(gateway, create, { input: { name: 'n', scopes: ['admin', 'admin'] } });
    expect(data).toMatchObject({ createApiKey: { apiKey: { orgId: 'default-org', scopes: ['admin'] } } });
  });

  it.each([
    ['no scopes', { scopes: [] }],
    ['an unknown scope', { scopes: ['agents:read', 'agents:write'] }],
    ['no name', { name: '' }],
    ['a name of 256 characters', { name: 'n'.repeat(256) }],
    ['a life of no time', { expiresIn: 0 }],
    ['a life of more than ten years', { expiresIn: 315_360_001 }],
    ['an organisation and all of them', { orgId: 'acme', allOrganisations: true }],
    ['an organisation of 256 characters', { orgId: 'o'.repeat(256) }],
  ])('cannot give a key with %s', async (_name, wrong) => {
    expect(await codesOf(create, { name: 'n', scopes: ['admin'], ...wrong })).toEqual(['BAD_USER_INPUT']);
  });
});
