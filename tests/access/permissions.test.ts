import { readFileSync } from 'node:fs';
import { isObjectType } from 'graphql';
import { afterAll, beforeAll, describe, expect, it, test } from 'vitest';
import { z } from 'zod';
import { type Need, type Permission, permissions } from '../../src/access/consumer.ts';
import { startV1Agent } from '../../src/agent-client/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { groupBy } from '../../src/group-by.ts';
import { needOfField } from '../../src/schema/permissions.ts';
import { buildSchema } from '../../src/schema/schema.ts';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { startTestGateway, type TestGateway } from '../support/gateway.ts';
import { documentTable, fieldTable, nodeTable, type Objects, routeTable } from './permission-table.ts';
import { ask, makeKey, revokeKey } from './stage.ts';

/** Whoever asks: what the credentials permit, and how far; null: nobody that is known. */
interface Role {
  readonly name: string;
  readonly token: string | null;
  readonly may: 'nothing' | { readonly scopes: readonly Permission[]; readonly everywhere: boolean };
}

function isMet({ may }: Role, need: Need): boolean {
  if (may === 'nothing') return false;
  if (need === 'authenticated') return true;
  const isAdmin = may.scopes.includes('admin');
  return need === 'operator' ? isAdmin && may.everywhere : isAdmin || may.scopes.includes(need);
}

const own = 'acme';
const foreign = 'globex';

async function rolesOf(gateway: TestGateway): Promise<Role[]> {
  const role = async (name: string, scopes: readonly Permission[], everywhere = false): Promise<Role> => {
    const where = everywhere ? { allOrganisations: true } : { orgId: own };
    const { key } = await makeKey(gateway, { name, scopes, ...where });
    return { name, token: key, may: { scopes, everywhere } };
  };
  const revoked = await makeKey(gateway, { scopes: ['admin'], allOrganisations: true });
  await revokeKey(gateway, revoked.id);
  const expired = await makeKey(gateway, { scopes: ['admin'], allOrganisations: true, expiresIn: 1 });
  await eventually(async () => (await ask(gateway, '{ __typename }', {}, expired.key)).status === 401);
  const each = await Promise.all(permissions.map((permission) => role(permission, [permission])));
  return [
    { name: 'nobody', token: null, may: 'nothing' },
    { name: 'a revoked key', token: revoked.key, may: 'nothing' },
    { name: 'an expired key', token: expired.key, may: 'nothing' },
    ...each,
    await role(
      'all but admin',
      permissions.filter((permission) => permission !== 'admin'),
    ),
    await role(
      'all but admin, everywhere',
      permissions.filter((permission) => permission !== 'admin'),
      true,
    ),
    await role('admin everywhere', ['admin'], true),
    { name: 'ADMIN_TOKEN', token: gateway.token, may: { scopes: ['admin'], everywhere: true } },
  ];
}

const idSchema = z.object({ id: z.string() });
const madeSchema = z.object({
  sendMessage: z.object({ message: idSchema }),
  createEnrollmentToken: z.object({ enrollmentToken: idSchema }),
});
const seenSchema = z.object({
  agent: z.object({ uid: z.string(), events: z.object({ nodes: z.array(idSchema).min(1) }) }),
});
const broadcastSchema = z.object({ broadcast: z.object({ broadcast: idSchema }) });

function plain(nodeId: string): string {
  return Buffer.from(nodeId, 'base64url').toString().split(':')[1] ?? '';
}

/** An agent, an event, a message, a broadcast, a token and a key of an organisation, whose name stands in all that can be read. */
async function objectsOf(gateway: TestGateway, orgId: string): Promise<Objects> {
  const agentId = `${orgId}-host`;
  const agent = startV1Agent({ url: gateway.agentUrl, agentId, suite: nativeCrypto, facts: { orgId } });
  await agent.ready();
  await agent.sendEvent('logs', { text: orgId });
  const seenBy = `{ agent(agentId: "${agentId}") { uid events(kinds: [LOGS]) { nodes { id } } } }`;
  const seen = await eventually(async () => seenSchema.safeParse((await ask(gateway, seenBy)).data).data);
  await agent.close();
  const spare = startV1Agent({
    url: gateway.agentUrl,
    agentId: `${orgId}-spare`,
    suite: nativeCrypto,
    facts: { orgId },
  });
  await spare.ready();
  await spare.close();
  const { key: token, id: keyId } = await makeKey(gateway, { name: `${orgId} key`, scopes: ['admin'], orgId });
  const made = madeSchema.parse(
    (
      await ask(
        gateway,
        `mutation {
          sendMessage(input: {agentId: "${agentId}", channel: TESTS, payload: "${orgId}"}) { message { id } }
          createEnrollmentToken(input: {expiresIn: 3600, note: "${orgId}"}) { enrollmentToken { id } }
          setAgentNote(agentId: "${agentId}", note: "${orgId}") { uid }
          setAgentLabels(agentId: "${agentId}", add: ["${orgId}"]) { uid }
        }`,
        {},
        token,
      )
    ).data,
  );
  const broadcast =
    'mutation { broadcast(input: {channel: TESTS, payload: 1, ratePerSecond: 1}) { broadcast { id } } }';
  const { broadcast: sent } = broadcastSchema.parse((await ask(gateway, broadcast, {}, token)).data);
  return {
    ...{ orgId, agentId, agentUid: seen.agent.uid, keyId, tokenId: made.createEnrollmentToken.enrollmentToken.id },
    spareName: `${orgId}-spare`,
    eventId: seen.agent.events.nodes[0]?.id ?? '',
    messageId: plain(made.sendMessage.message.id),
    broadcastId: plain(sent.broadcast.id),
  };
}

const answerSchema = z.object({
  data: z.unknown().optional(),
  errors: z.array(z.object({ message: z.string(), extensions: z.object({ code: z.string() }) })).default([]),
});

/** What GraphQL answers; of a subscription that has begun, nothing. */
async function answerTo(gateway: TestGateway, query: string, token: string | null) {
  const response = await gateway.fetch('/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/json, text/event-stream', ...elsewhere() },
    body: JSON.stringify({ query }),
    authorization: token === null ? null : `Bearer ${token}`,
  });
  if (response.headers.get('content-type')?.startsWith('text/event-stream')) {
    await response.body?.cancel();
    return { status: response.status, text: '', data: null, errors: [] };
  }
  const text = await response.text();
  return { status: response.status, text, ...answerSchema.parse(JSON.parse(text)) };
}

async function callRoute(gateway: TestGateway, route: string, objects: Objects, token: string | null) {
  const [method = '', template = ''] = route.split(' ');
  const { path, body } = routeTable[route] ?? {};
  const response = await gateway.fetch(path?.(objects) ?? template, {
    method: method.toUpperCase(),
    headers: elsewhere(),
    ...(body ? { body: JSON.stringify(body) } : {}),
    authorization: token === null ? null : `Bearer ${token}`,
  });
  const text = await response.text();
  const isProblem = response.headers.get('content-type') === 'application/problem+json';
  const detail = isProblem ? z.object({ detail: z.string() }).parse(JSON.parse(text)).detail : text;
  return { status: response.status, text, detail };
}

/** Each from an address of its own: wrong credentials are counted by address. */
let asked = 0;
function elsewhere(): Record<string, string> {
  asked++;
  return { 'x-forwarded-for': `10.${asked >> 16}.${(asked >> 8) & 255}.${asked & 255}` };
}
const env = { TRUST_PROXY: '127.0.0.1' };

const scopeIn = (need: Need) => (need === 'operator' ? 'the scope admin, of all organisations' : `the scope ${need}`);

describe('the table', () => {
  test('has every field of every type, with what it needs', () => {
    const found: Record<string, Record<string, string>> = {};
    for (const type of Object.values(buildSchema().getTypeMap())) {
      if (!isObjectType(type) || type.name.startsWith('__')) continue;
      const byNeed = groupBy(Object.values(type.getFields()), (field) => needOfField(field) ?? 'nothing');
      const names = [...byNeed].map(
        ([need, fields]) =>
          [
            need,
            fields
              .map(({ name }) => name)
              .sort()
              .join(' '),
          ] as const,
      );
      found[type.name] = Object.fromEntries(names);
    }
    const told = Object.entries(fieldTable).map(([type, byNeed]) => [
      type,
      Object.fromEntries(Object.entries(byNeed).map(([need, names]) => [need, names.split(' ').sort().join(' ')])),
    ]);
    expect(found).toEqual(Object.fromEntries(told));
  });

  test('is told in docs/ACCESS.md', () => {
    const page = readFileSync(new URL('../../docs/ACCESS.md', import.meta.url), 'utf8');
    const rowOf = (need: string) => {
      const words = { authenticated: 'any credentials', operator: '`admin` of all organisations', open: 'nothing' };
      const cell = Object.entries(words).find(([name]) => name === need)?.[1] ?? `\`${need}\``;
      return page.split('\n').find((line) => line.startsWith(`| ${cell} |`) && line.split('|').length === 5) ?? '';
    };
    for (const type of ['Query', 'Mutation', 'Subscription', 'Gateway'])
      for (const [need, names] of Object.entries(fieldTable[type] ?? {}))
        for (const name of need === 'nothing' ? [] : names.split(' '))
          expect([need, rowOf(need)]).toEqual([need, expect.stringMatching(new RegExp(`[\`.]${name}\``))]);
    for (const [route, { need }] of Object.entries(routeTable)) {
      const [method = '', path = ''] = route.split(' ');
      expect(rowOf(need)).toContain(`\`${method.toUpperCase()} ${path}\``);
    }
    for (const permission of permissions) expect(page).toContain(`\n| \`${permission}\` |`);
  });

  test('has a document for every query, mutation, subscription, and for every field that leads into another part', () => {
    const roots = ['Query', 'Mutation', 'Subscription'];
    const needed = Object.entries(fieldTable).flatMap(([type, byNeed]) =>
      Object.entries(byNeed)
        .filter(([need]) => need !== 'nothing')
        .flatMap(([, names]) => names.split(' ').map((name) => `${type}.${name}`)),
    );
    // Connections and payloads stand behind fields that need the same; the events of other kinds are like the generic ones.
    const covered = needed.filter(
      (name) => !/Connection\.|Edge\.|Payload\.|PresenceEvent\.|^(Anomaly|Threat|Process)Event\./.test(name),
    );
    expect(Object.keys(documentTable).sort()).toEqual(covered.sort());
    expect(covered.filter((name) => roots.some((root) => name.startsWith(`${root}.`))).length).toBeGreaterThan(30);
  });
});

describe('whoever asks', () => {
  let gateway: TestGateway;
  let roles: Role[];
  let objects: Objects;
  beforeAll(async () => {
    gateway = await startTestGateway({ env });
    objects = await objectsOf(gateway, own);
    roles = await rolesOf(gateway);
  });
  afterAll(() => gateway.stop());

  const needs = new Map<string, string>(
    Object.entries(fieldTable).flatMap(([type, byNeed]) =>
      Object.entries(byNeed).flatMap(([need, names]) =>
        names.split(' ').map((name) => [`${type}.${name}`, need] as const),
      ),
    ),
  );

  it.each(Object.keys(documentTable))('for %s needs what the table says, and nothing else', async (field) => {
    const need = needSchema.parse(needs.get(field));
    const { by, leads = need } = documentTable[field] ?? expect.unreachable();
    for (const role of roles) {
      const { status, errors } = await answerTo(gateway, by(objects), role.token);
      const codes = [...new Set(errors.map(({ extensions }) => extensions.code))];
      if (role.may === 'nothing') expect([role.name, status, codes]).toEqual([role.name, 401, ['UNAUTHENTICATED']]);
      else if (isMet(role, need) && isMet(role, leads)) {
        expect([role.name, codes.filter((code) => /FORBIDDEN|INTERNAL|UNAUTH|VALIDATION|BAD_USER/.test(code))]).toEqual(
          [role.name, []],
        );
      } else {
        const missing = isMet(role, leads) ? need : leads;
        expect([role.name, codes, errors[0]?.message]).toEqual([
          role.name,
          ['FORBIDDEN'],
          `This needs ${scopeIn(missing)}`,
        ]);
      }
    }
  });

  it.each(Object.keys(nodeTable))('for node(id) of %s needs what that type needs', async (name) => {
    const { need, id } = nodeTable[name] ?? expect.unreachable();
    for (const role of roles) {
      const { errors, data } = await answerTo(gateway, `{ node(id: "${id(objects)}") { id } }`, role.token);
      if (role.may === 'nothing') continue;
      if (isMet(role, need))
        expect([role.name, errors, data]).toEqual([role.name, [], { node: { id: expect.any(String) } }]);
      else expect([role.name, errors[0]?.message]).toEqual([role.name, `This needs ${scopeIn(need)}`]);
    }
  });

  it.each(Object.keys(routeTable))('for %s needs what the table says, and nothing else', async (route) => {
    const { need } = routeTable[route] ?? expect.unreachable();
    for (const role of roles) {
      const { status, detail } = await callRoute(gateway, route, objects, role.token);
      if (need === 'open') expect([401, 403]).not.toContain(status);
      else if (role.may === 'nothing') expect([role.name, status]).toEqual([role.name, 401]);
      else if (isMet(role, need))
        expect([role.name, [200, 202, 404, 409]]).toEqual([role.name, expect.arrayContaining([status])]);
      else expect([role.name, status, detail]).toEqual([role.name, 403, `This needs ${scopeIn(need)}`]);
    }
  });

  test('the document of REST has every route of the table, each with its need as a role, and no other', async () => {
    const { text } = await callRoute(gateway, 'get /openapi.json', objects, null);
    const { paths } = z
      .object({
        paths: z.record(
          z.string(),
          z.record(z.string(), z.object({ security: z.array(z.object({ bearer: z.array(z.string()) })) })),
        ),
      })
      .parse(JSON.parse(text));
    const documented = Object.entries(paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, { security }]) => [`${method} ${path}`, security[0]?.bearer[0] ?? 'open']),
    );
    expect(Object.fromEntries(documented)).toEqual(
      Object.fromEntries(Object.entries(routeTable).map(([route, { need }]) => [route, need])),
    );
  });

  test('introspection needs credentials and no scope', async () => {
    for (const role of roles) {
      const { status } = await answerTo(gateway, '{ __schema { queryType { name } } }', role.token);
      expect([role.name, status]).toEqual([role.name, role.may === 'nothing' ? 401 : 200]);
    }
  });
});

const needSchema = z.enum([...permissions, 'authenticated', 'operator']);

describe.each(hasPostgres() ? ['postgres', 'embedded'] : ['embedded'])(
  'an administrator of one organisation, on %s',
  (engine) => {
    let gateway: TestGateway;
    let objects: Objects;
    let token: string;
    beforeAll(async () => {
      gateway = await startTestGateway({ env, embedded: engine === 'embedded' });
      objects = await objectsOf(gateway, foreign);
      ({ key: token } = await makeKey(gateway, { scopes: ['admin'], orgId: own }));
      await objectsOf(gateway, own);
    });
    afterAll(() => gateway.stop());

    const everythingForeign = async () => {
      const of = `(filter: {orgId: "${foreign}"})`;
      const agents = await ask(
        gateway,
        `{ agents${of} { totalCount nodes { uid note labels enrollment keyFingerprint channels messages { nodes { id status attempts } } } } broadcast(id: "${objects.broadcastId}") { state progress { targets cancelled } } }`,
      );
      const { data } = await ask(
        gateway,
        '{ enrollmentTokens { nodes { id orgId state } } apiKeys { nodes { id orgId state } } }',
      );
      const { enrollmentTokens, apiKeys } = ownedSchema.parse(data);
      const theirs = [...enrollmentTokens.nodes, ...apiKeys.nodes].filter(({ orgId }) => orgId !== own);
      return JSON.stringify([agents, theirs]);
    };
    const ownedSchema = z.object({
      enrollmentTokens: z.object({ nodes: z.array(z.looseObject({ orgId: z.string() })) }),
      apiKeys: z.object({ nodes: z.array(z.looseObject({ orgId: z.string().nullable() })) }),
    });

    it('reads nothing and changes nothing of another, by any query, mutation or subscription', async () => {
      const before = await everythingForeign();
      expect(before).toContain(foreign);
      const shown: string[] = [];
      for (const [field, { by }] of Object.entries(documentTable)) {
        const { text, errors } = await answerTo(gateway, by(objects), token);
        expect([field, text.includes(foreign)]).toEqual([field, false]);
        expect(errors.map(({ extensions }) => extensions.code)).not.toContain('INTERNAL_SERVER_ERROR');
        if (field.startsWith('Subscription.'))
          expect([field, errors[0]?.extensions.code]).toEqual([field, expect.stringMatching(/NOT_FOUND/)]);
        if (by(objects).startsWith('{') && (await answerTo(gateway, by(objects), gateway.token)).text.includes(foreign))
          shown.push(field);
      }
      for (const [name, { id }] of Object.entries(nodeTable))
        expect([name, (await answerTo(gateway, `{ node(id: "${id(objects)}") { id } }`, token)).data]).toEqual([
          name,
          { node: null },
        ]);
      // What could have been seen.
      expect(shown).toEqual(
        expect.arrayContaining([
          'Query.agent',
          'Query.agents',
          'Query.events',
          'Query.message',
          'Query.apiKeys',
          'Query.auditEntries',
          'Agent.events',
          'Message.agent',
        ]),
      );
      expect(await everythingForeign()).toBe(before);
    });

    it('reads nothing and changes nothing of another, by any route', async () => {
      const before = await everythingForeign();
      for (const route of Object.keys(routeTable)) {
        const { text, status } = await callRoute(gateway, route, objects, token);
        expect([route, text.includes(foreign)]).toEqual([route, false]);
        if (routeTable[route]?.path) expect([route, status]).toEqual([route, 404]);
      }
      expect(await everythingForeign()).toBe(before);
    });

    it('sees of a broadcast to all organisations its own messages, and not the broadcast', async () => {
      const sent = await ask(
        gateway,
        'mutation { broadcast(input: {channel: TESTS, payload: 1}) { broadcast { id } } }',
      );
      const { broadcast } = broadcastSchema.parse(sent.data);
      const mine = await ask(
        gateway,
        `{ agent(agentId: "${own}-host") { messages(last: 1) { nodes { id broadcast { id } } } } }`,
        {},
        token,
      );
      expect(mine.data).toMatchObject({ agent: { messages: { nodes: [{ broadcast: null }] } } });
      expect((await ask(gateway, `{ broadcast(id: "${broadcast.broadcast.id}") { id } }`, {}, token)).data).toEqual({
        broadcast: null,
      });
      const { agent } = z
        .object({ agent: z.object({ messages: z.object({ nodes: z.array(idSchema) }) }) })
        .parse(mine.data);
      const cancelled = await ask(
        gateway,
        'mutation ($id: ID!) { cancelMessage(id: $id) { status } }',
        { id: agent.messages.nodes[0]?.id },
        token,
      );
      expect(cancelled.data).toEqual({ cancelMessage: { status: 'CANCELLED' } });
    });
  },
);
