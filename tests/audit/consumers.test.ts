import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { recordGatewayKeys } from '../../src/audit/key-record.ts';
import { buildSchema } from '../../src/schema/schema.ts';
import { type ConsumerStage, startConsumerStage } from '../schema/consumer-stage.ts';
import { hasPostgres } from '../support/databases.ts';
import { auditEntries, type SeenEntry } from './entries.ts';

let stage: ConsumerStage;
beforeAll(async () => {
  stage = await startConsumerStage({ env: { AGENT_ENROLLMENT: 'approval' } });
  for (const name of ['host-1', 'host-2', 'host-3', 'host-4']) await stage.connect(name);
  await stage.ask('mutation { approveAgents(filter: { agentIds: ["host-1", "host-3"] }) }');
});
afterAll(() => stage.stop());

const idIn = (answer: unknown): string => {
  const found = /"id":"([^"]+)"/.exec(JSON.stringify(answer))?.[1];
  if (found === undefined) throw new Error(`no id in ${JSON.stringify(answer)}`);
  return found;
};
const secretPayload = { secret: 'of-the-payload' };
const make = {
  message: async () =>
    idIn(
      await stage.ask('mutation ($input: SendMessageInput!) { sendMessage(input: $input) { message { id } } }', {
        input: { agentId: 'host-2', channel: 'TESTS', payload: secretPayload },
      }),
    ),
  broadcast: async () =>
    idIn(
      await stage.ask('mutation ($input: BroadcastInput!) { broadcast(input: $input) { broadcast { id } } }', {
        // Nobody is sent anything before it is cancelled.
        input: { channel: 'TESTS', payload: secretPayload, filter: { agentIds: ['host-4'], enrollment: 'PENDING' } },
      }),
    ),
  token: async () =>
    idIn(await stage.ask('mutation { createEnrollmentToken(input: { expiresIn: 60 }) { enrollmentToken { id } } }')),
  key: async () =>
    idIn(await stage.ask('mutation { createApiKey(input: { name: "k", scopes: ["admin"] }) { apiKey { id } } }')),
};

interface AuditedMutation {
  readonly call: string;
  readonly id?: () => Promise<string>;
  readonly action: string;
  readonly entry: object;
}

const agent = { type: 'agent', name: 'host-1', id: expect.stringMatching(/^[0-9a-f-]{36}$/) };
/** Every mutation with what it puts on record. A new one fails here until it is in the table. */
const mutations: Readonly<Record<string, AuditedMutation>> = {
  sendMessage: {
    call: 'sendMessage(input: { agentId: "host-1", channel: POLICIES, payload: { secret: "of-the-payload" } }) { message { id } }',
    action: 'message.send',
    entry: {
      subject: { type: 'message', name: 'host-1' },
      details: {
        request: {
          channel: 'backend.policies',
          type: 'request',
          payloadBytes: 27,
          payloadSha256: expect.stringMatching(/^[0-9a-f]{64}$/),
        },
      },
    },
  },
  cancelMessage: {
    call: 'cancelMessage(id: $id) { id }',
    id: make.message,
    action: 'message.cancel',
    entry: { subject: { type: 'message', name: 'host-2' } },
  },
  broadcast: {
    call: 'broadcast(input: { channel: POLICIES, payload: { secret: "of-the-payload" }, ratePerSecond: 5 }) { broadcast { id } }',
    action: 'broadcast.send',
    entry: { subject: { type: 'broadcast' }, details: { targets: 2, request: { ratePerSecond: 5, payloadBytes: 27 } } },
  },
  cancelBroadcast: {
    call: 'cancelBroadcast(id: $id) { id }',
    id: make.broadcast,
    action: 'broadcast.cancel',
    entry: { subject: { type: 'broadcast' } },
  },
  approveAgent: {
    call: 'approveAgent(agentId: "host-2") { uid }',
    action: 'agent.approve',
    entry: {
      subject: { ...agent, name: 'host-2' },
      details: { protocol: 'v1', keyFingerprint: expect.stringMatching(/^[0-9a-f]{64}$/) },
    },
  },
  approveAgents: {
    call: 'approveAgents(filter: { agentIds: ["host-4"] })',
    action: 'agent.approve',
    entry: { subject: { ...agent, name: 'host-4' } },
  },
  revokeAgent: {
    call: 'revokeAgent(agentId: "host-3", reason: "stolen") { uid }',
    action: 'agent.revoke',
    entry: { subject: { ...agent, name: 'host-3' }, details: { reason: 'stolen' } },
  },
  resetAgentKey: {
    call: 'resetAgentKey(agentId: "host-1") { uid }',
    action: 'agent.reset-key',
    entry: { subject: agent },
  },
  setAgentLabels: {
    call: 'setAgentLabels(agentId: "host-1", add: ["a"], remove: ["b"]) { uid }',
    action: 'agent.label',
    entry: { subject: agent, details: { add: ['a'], remove: ['b'] } },
  },
  setAgentNote: {
    call: 'setAgentNote(agentId: "host-1", note: "ours") { uid }',
    action: 'agent.note',
    entry: { subject: agent, details: { note: 'ours', characters: 4 } },
  },
  setAgentChannel: {
    call: 'setAgentChannel(agentId: "host-1", channel: "agent.logs", active: false) { uid }',
    action: 'agent.channel',
    entry: { subject: agent, details: { channels: ['agent.host-1.logs'], active: false } },
  },
  disconnectAgent: {
    call: 'disconnectAgent(agentId: "host-1") { uid }',
    action: 'agent.disconnect',
    entry: { subject: agent },
  },
  createEnrollmentToken: {
    call: 'createEnrollmentToken(input: { agentId: "host-9", expiresIn: 60 }) { token }',
    action: 'enrollment-token.create',
    entry: { subject: { type: 'enrollment-token', name: 'host-9' }, details: { expiresAt: expect.any(String) } },
  },
  revokeEnrollmentToken: {
    call: 'revokeEnrollmentToken(id: $id) { id }',
    id: make.token,
    action: 'enrollment-token.revoke',
    entry: { subject: { type: 'enrollment-token' } },
  },
  createApiKey: {
    call: 'createApiKey(input: { name: "console", scopes: ["agents:read"], expiresIn: 60 }) { key }',
    action: 'api-key.create',
    entry: {
      subject: { type: 'api-key', name: 'console' },
      details: {
        prefix: expect.stringMatching(/^agk_[0-9a-f]{12}$/),
        scopes: ['agents:read'],
        expiresAt: expect.any(String),
      },
    },
  },
  revokeApiKey: {
    call: 'revokeApiKey(id: $id) { id }',
    id: make.key,
    action: 'api-key.revoke',
    entry: { subject: { type: 'api-key', name: 'k' } },
  },
};

const newest = async (action: string): Promise<SeenEntry | undefined> =>
  (await auditEntries(stage.ask, { actions: [action] }))[0];

describe('a mutation', () => {
  it('is put on record, whichever it is', () => {
    const names = Object.keys(buildSchema().getMutationType()?.getFields() ?? {});
    expect(Object.keys(mutations).sort()).toEqual(names.sort());
  });

  it.each(Object.entries(mutations))('%s is, with who and what and never a secret', async (name, audited) => {
    const id = await audited.id?.();
    const before = (await auditEntries(stage.ask, { actions: [audited.action] })).length;
    const requestId = `request-${randomUUID()}`;
    const response = await stage.post(
      { query: `mutation${id ? ' ($id: ID!)' : ''} { ${audited.call} }`, variables: { id } },
      { headers: { 'x-request-id': requestId } },
    );
    expect(response.answer.errors).toBeUndefined();
    const entries = await auditEntries(stage.ask, { actions: [audited.action] });
    expect([name, entries.length]).toEqual([name, before + 1]);
    expect(entries[0]).toMatchObject({
      orgId: 'default-org',
      action: audited.action,
      outcome: 'OK',
      actor: { kind: 'admin-token', id: 'ADMIN_TOKEN', label: 'ADMIN_TOKEN', address: '127.0.0.1', requestId },
      ...audited.entry,
    });
    const told = JSON.stringify(entries[0]);
    for (const secret of ['of-the-payload', 'enr_', ...(/agk_\w+/.exec(response.text) ?? [])])
      expect(told).not.toContain(secret);
  });
});

const openapi = z.object({
  paths: z.record(z.string(), z.record(z.string(), z.object({ operationId: z.string() }).loose())),
});

interface AuditedRoute {
  readonly path: string;
  readonly body: object;
  readonly action: string | null;
}

/** Every route that is no GET; null: it changes nothing that lasts. */
const routes: Readonly<Record<string, AuditedRoute>> = {
  sendMessage: {
    path: '/api/v1/agents/host-1/send',
    body: { channel: 'policies', message: {} },
    action: 'message.send',
  },
  broadcastMessage: {
    path: '/api/v1/agents/broadcast',
    body: { channel: 'policies', message: {} },
    action: 'broadcast.send',
  },
  changeAgentLabels: { path: '/agents/host-1/labels', body: { add: ['x'] }, action: 'agent.label' },
  setAgentNote: { path: '/agents/host-1/note', body: { note: 'x' }, action: 'agent.note' },
  beginRegistration: { path: '/agents/register/init', body: {}, action: null },
  // What it changes is an agent's doing: tests/audit/agents.test.ts.
  completeRegistration: { path: '/agents/register/complete', body: {}, action: null },
};

describe('a route that changes something', async () => {
  it('is put on record, whichever it is', async () => {
    const { paths } = openapi.parse(await (await stage.gateway.fetch('/openapi.json')).json());
    const changing = Object.values(paths).flatMap((methods) =>
      Object.entries(methods).flatMap(([method, { operationId }]) => (method === 'get' ? [] : [operationId])),
    );
    expect(Object.keys(routes).sort()).toEqual(changing.sort());
  });

  it.each(Object.entries(routes).filter(([, { action }]) => action !== null))(
    '%s is, with who asked',
    async (_name, route) => {
      const requestId = `request-${randomUUID()}`;
      const method = route.path.startsWith('/agents') ? 'PUT' : 'POST';
      const headers = { 'content-type': 'application/json', 'x-request-id': requestId };
      const response = await stage.gateway.fetch(route.path, { method, headers, body: JSON.stringify(route.body) });
      expect(response.ok).toBe(true);
      expect((await newest(route.action ?? ''))?.actor).toEqual({
        ...{ kind: 'admin-token', id: 'ADMIN_TOKEN', label: 'ADMIN_TOKEN', address: '127.0.0.1', requestId },
      });
    },
  );
});

describe('a change', () => {
  it('over WebSocket is put on record with the id of its upgrade', async () => {
    const results = stage.subscribe('mutation { setAgentNote(agentId: "host-1", note: "over a socket") { uid } }');
    await results.next();
    expect(await newest('agent.note')).toMatchObject({
      details: { note: 'over a socket' },
      actor: { address: '127.0.0.1', requestId: expect.stringMatching(/^[0-9a-f-]{36}$/) },
    });
  });

  it('that is refused, or that its idempotency key has made before, is not', async () => {
    const count = async () => (await auditEntries(stage.ask)).length;
    const send = (payload: object, agentId = 'host-2') =>
      stage.post({
        query: 'mutation ($input: SendMessageInput!) { sendMessage(input: $input) { message { id } } }',
        variables: { input: { agentId, channel: 'TESTS', payload, idempotencyKey: 'once' } },
      });
    await send({});
    const before = await count();
    await send({});
    await send({ other: true });
    await send({}, 'nobody');
    await stage.codesOf('mutation { revokeAgent(agentId: "nobody") { uid } }');
    await stage.codesOf('mutation { cancelMessage(id: "nothing") { id } }');
    expect(await count()).toBe(before);
  });

  it('by whoever has an API key names the key, and is seen by auditors of its organisation alone', async () => {
    const keyOf = async (scopes: readonly string[], orgId: string) => {
      const data = await stage.ask(
        'mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { key apiKey { id } } }',
        { input: { name: `${orgId}'s`, scopes, orgId } },
      );
      return z.object({ createApiKey: z.object({ key: z.string(), apiKey: z.object({ id: z.string() }) }) }).parse(data)
        .createApiKey;
    };
    const askWith = (key: string) => async (query: string, variables: Record<string, unknown>) =>
      (await stage.post({ query, variables }, { authorization: `Bearer ${key}` })).answer.data;
    const operator = await keyOf(['agents:manage'], 'acme');
    const made = await askWith(operator.key)(
      'mutation { createEnrollmentToken(input: { expiresIn: 60 }) { token } }',
      {},
    );
    expect(made).toBeTruthy();
    const [acme, other] = [await keyOf(['audit:read'], 'acme'), await keyOf(['audit:read'], 'other')];
    const seen = await auditEntries(askWith(acme.key));
    expect(seen.map(({ orgId }) => orgId).every((orgId) => orgId === 'acme')).toBe(true);
    expect(seen.find(({ action }) => action === 'enrollment-token.create')?.actor).toMatchObject({
      ...{ kind: 'api-key', id: operator.apiKey.id, label: expect.stringContaining("acme's") },
    });
    expect((await auditEntries(askWith(other.key))).map(({ action }) => action)).toEqual(['api-key.create']);
    expect(await auditEntries(askWith(acme.key), { orgId: 'other' })).toEqual([]);
    const refused = await stage.post(
      { query: '{ auditEntries { nodes { id } } }' },
      { authorization: `Bearer ${operator.key}` },
    );
    expect(refused.answer.errors?.map(({ extensions }) => extensions.code)).toEqual(['FORBIDDEN']);
  });
});

describe('the log', () => {
  it('shows an auditor nothing of another organisation, by whatever filter, cursor or id', async () => {
    const [mine, foreign] = [`mine-${randomUUID()}`, `foreign-${randomUUID()}`];
    const createKey = 'mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { key apiKey { id } } }';
    const made = z.object({ createApiKey: z.object({ key: z.string(), apiKey: z.object({ id: z.string() }) }) });
    const keyOf = async (orgId: string) =>
      made.parse(await stage.ask(createKey, { input: { name: orgId, scopes: ['audit:read'], orgId } })).createApiKey;
    const edge = z.object({ cursor: z.string(), node: z.object({ id: z.string(), orgId: z.string().nullable() }) });
    const pages = z.object({ auditEntries: z.object({ edges: z.array(edge) }) });
    const query = `query ($filter: AuditFilter, $first: Int, $last: Int, $after: String, $before: String) {
      auditEntries(filter: $filter, first: $first, last: $last, after: $after, before: $before) {
        edges { cursor node { id orgId at actor { id } subject { id } details } } } }`;

    // Theirs lie before, between and behind ours.
    const theirs = [await keyOf(foreign)];
    const auditor = await keyOf(mine);
    theirs.push(await keyOf(foreign));
    const own = await keyOf(mine);
    theirs.push(await keyOf(foreign));
    const all = pages.parse(await stage.ask(query, { first: 5 })).auditEntries.edges;
    expect(all.map(({ node }) => node.orgId)).toEqual([foreign, mine, foreign, mine, foreign]);

    const seen = async (variables: object) => {
      const { answer } = await stage.post({ query, variables }, { authorization: `Bearer ${auditor.key}` });
      expect(answer.errors).toBeUndefined();
      expect(JSON.stringify(answer)).not.toContain(foreign);
      return pages.parse(answer.data).auditEntries.edges.map(({ node }) => node.id);
    };
    const ours = all.filter(({ node }) => node.orgId === mine).map(({ node }) => node.id);
    expect(await seen({ first: 500 })).toEqual(ours);
    expect(await seen({ last: 500 })).toEqual(ours);
    for (const filter of [
      {},
      { actions: ['api-key.create'] },
      { actorId: 'ADMIN_TOKEN' },
      { since: '2000-01-01T00:00:00Z' },
    ])
      expect(await seen({ filter, first: 500 })).toEqual(ours);
    for (const { apiKey } of theirs) expect(await seen({ filter: { subjectId: apiKey.id }, first: 500 })).toEqual([]);
    expect(await seen({ filter: { subjectId: own.apiKey.id }, first: 500 })).toEqual([ours[0]]);
    expect(await seen({ filter: { orgId: foreign }, first: 500 })).toEqual([]);
    for (const [place, { cursor, node }] of all.entries()) {
      const behind = all.slice(place + 1).flatMap(({ node: { id } }) => (ours.includes(id) ? [id] : []));
      const ahead = all.slice(0, place).flatMap(({ node: { id } }) => (ours.includes(id) ? [id] : []));
      expect(await seen({ first: 500, after: cursor })).toEqual(behind);
      expect(await seen({ last: 500, before: cursor })).toEqual(ahead);
      const byId = await stage.post(
        { query: `{ node(id: "${node.id}") { id } }` },
        { authorization: `Bearer ${auditor.key}` },
      );
      expect(byId.answer.data).toEqual({ node: null });
    }
  });
});

describe.runIf(hasPostgres())("the gateway's keys", () => {
  it('are put on record when they are other ones than before, and not at every start', async () => {
    const loads = () => auditEntries(stage.ask, { actions: ['gateway-key.load'] });
    const [first] = await loads();
    expect(first).toMatchObject({
      ...{ orgId: null, actor: { kind: 'gateway' }, subject: { type: 'gateway-key', id: 'gateway' } },
      details: { current: expect.stringMatching(/^[0-9a-f]{64}$/), next: null },
    });
    // DATA_DIR=memory keeps none.
    await stage.gateway.restart();
    const [second, ...before] = await loads();
    expect(second?.details).not.toEqual(first?.details);
    expect(before.map(({ details }) => details)).toEqual([first?.details]);
    await recordGatewayKeys(stage.gateway, { current: second?.subject.name ?? '', next: null });
    expect(await loads()).toHaveLength(2);
  });
});

describe.runIf(hasPostgres())('a broadcast to several organisations', () => {
  it('has an entry in the chain of each, and so has its end', async () => {
    const fleet = `fleet-${randomUUID()}`;
    for (const [name, orgId] of [
      ['p-1', 'p'],
      ['p-2', 'p'],
      ['q-1', 'q'],
    ] as const) {
      const { token } = z
        .object({ token: z.string() })
        .parse(
          (
            await stage.ask(
              'mutation ($input: CreateEnrollmentTokenInput!) { createEnrollmentToken(input: $input) { token } }',
              { input: { agentId: name, orgId, expiresIn: 60 } },
            )
          ).createEnrollmentToken,
        );
      expect(token).toMatch(/^enr_/);
      await stage.gateway.sql`
        insert into agents (org_id, name, enrollment, public_key, key_fingerprint, labels)
        values (${orgId}, ${name}, 'approved', ${name}, ${name}, ${[fleet]})`;
    }
    const id = idIn(
      await stage.ask('mutation ($input: BroadcastInput!) { broadcast(input: $input) { broadcast { id } } }', {
        input: { channel: 'TESTS', payload: {}, filter: { labels: [fleet] } },
      }),
    );
    const [broadcast] = await auditEntries(stage.ask, { actions: ['broadcast.send'] });
    await stage.ask('mutation ($id: ID!) { cancelBroadcast(id: $id) { id } }', { id });
    const entries = await auditEntries(stage.ask, { subjectId: broadcast?.subject.id });
    expect(entries.map(({ action, orgId, details }) => [action, orgId, details.targets]).sort()).toEqual([
      ['broadcast.cancel', 'p', undefined],
      ['broadcast.cancel', 'q', undefined],
      ['broadcast.send', 'p', 2],
      ['broadcast.send', 'q', 1],
    ]);
  });
});
