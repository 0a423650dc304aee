import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { createMemoryBus } from '../../src/bus/memory-bus.ts';
import { systemClock } from '../../src/clock.ts';
import { type Database, openDatabase } from '../../src/db/database.ts';
import { migrate } from '../../src/db/migrate.ts';
import { createFleet } from '../../src/fleet/create-fleet.ts';
import { createAcceptanceQueries } from '../../src/messages/acceptance-queries.ts';
import { createBroadcastQueries } from '../../src/messages/broadcast-queries.ts';
import { createBroadcastTransitions } from '../../src/messages/broadcast-transitions.ts';
import type { NewMessage } from '../../src/messages/queries.ts';
import { changerOf } from '../support/changer.ts';
import { createTestDatabase, hasPostgres, type TestDatabase } from '../support/databases.ts';

const agents = 1_000;
/** As many as the organisation has: what is read for one of them, or for a page, must not be all of them. */
const agentsOfAcme = agents / 2;
const openMessages = 5_000;
const acme = changerOf('acme');
const draft: NewMessage = {
  ...{ kind: 'policies', type: 'request', priorityRank: 1, payloadText: '1', maxRetries: 3, ttlMs: 3_600_000 },
  ...{ idempotencyKey: null, requestHash: 'hash' },
};

interface Plan {
  'Relation Name'?: string | undefined;
  'Actual Rows'?: number | undefined;
  'Rows Removed by Filter'?: number | undefined;
  'Rows Removed by Join Filter'?: number | undefined;
  'Actual Loops'?: number | undefined;
  'Heap Fetches'?: number | undefined;
  Plans?: Plan[] | undefined;
}
const plan: z.ZodType<Plan> = z.lazy(() =>
  z.object({
    ...{ 'Relation Name': z.string().optional(), 'Actual Rows': z.number().optional() },
    ...{ 'Rows Removed by Filter': z.number().optional(), 'Rows Removed by Join Filter': z.number().optional() },
    ...{
      'Actual Loops': z.number().optional(),
      'Heap Fetches': z.number().optional(),
      Plans: z.array(plan).optional(),
    },
  }),
);

/** Rows of each table that a plan has read, in the table or in an index of it, whether it had any use for them or not. */
function rowsRead(node: Plan, into: Map<string, number> = new Map()): Map<string, number> {
  const relation = node['Relation Name'];
  const rows = (node['Actual Rows'] ?? 0) + (node['Rows Removed by Filter'] ?? 0);
  if (relation) into.set(relation, (into.get(relation) ?? 0) + rows * (node['Actual Loops'] ?? 0));
  for (const child of node.Plans ?? []) rowsRead(child, into);
  return into;
}

/** Of these, those that an index alone told. */
function rowsOfIndexesAlone(node: Plan): number {
  const heapFetches = node['Heap Fetches'];
  const own = heapFetches === undefined ? 0 : (node['Actual Rows'] ?? 0) * (node['Actual Loops'] ?? 0) - heapFetches;
  return (node.Plans ?? []).reduce((sum, child) => sum + rowsOfIndexesAlone(child), own);
}

describe.skipIf(!hasPostgres())('what Postgres reads for a consumer of one organisation', () => {
  let testDatabase: TestDatabase;
  let database: Database;
  let session: postgres.Sql;
  let asked: Database;
  const plans: Plan[] = [];

  beforeAll(async () => {
    testDatabase = await createTestDatabase();
    const url = testDatabase.databaseUrl ?? '';
    database = await openDatabase({ databaseUrl: url, dataDir: 'memory' });
    await migrate(database);
    const { sql } = database;
    await sql`
      insert into agents (org_id, name, enrollment, public_key, key_fingerprint, dialect)
      select case when i <= ${agentsOfAcme} then 'acme' else 'globex' end, 'agent-' || i, 'approved', i, i, 'enveloped'
      from generate_series(1, ${agents}) i`;
    await sql`
      insert into agent_connections (agent_id, public_key, session_token, instance_id, protocol, session_expires_at)
      select uid, 'k', 't', 'i', 'v1', now() from agents`;
    await sql`
      insert into communication_channels (agent_id, channel_name, channel_type, is_active)
      select uid, 'backend.' || uid || '.rollbacks', 'backend_to_agent', false from agents`;
    await sql`
      insert into message_queue (agent_id, agent_name, org_id, channel, message_type, payload, encrypted_payload, nonce, signature,
        priority)
      select uid, name, org_id, 'backend.policies', 'request', '1', '', '', '', 1
      from generate_series(1, ${openMessages}) i join agents on name = 'agent-' || (1 + ${agentsOfAcme} + i % ${agents - agentsOfAcme})`;
    await sql`
      insert into audit_entries (org_id, actor_kind, actor_id, actor_label, action, subject_type, subject_id, details, number, hash)
      select 'acme', 'gateway', 'g', 'g', 'agent.note', 'agent', i, '{}', i, '' from generate_series(1, 2000) i`;
    await sql`vacuum analyze agents, agent_connections, communication_channels, message_queue, audit_entries`;
    session = postgres(url, {
      max: 1,
      types: { bigint: { to: 20, from: [20], parse: Number, serialize: String } },
      onnotice: ({ message }) => {
        const [, json] = /plan:\n(\{[\s\S]*\})$/.exec(message ?? '') ?? [];
        if (json !== undefined) plans.push(z.object({ Plan: plan }).parse(JSON.parse(json)).Plan);
      },
    });
    await session`load 'auto_explain'`;
    for (const setting of ['log_min_duration = 0', 'log_analyze = on', 'log_timing = off', 'log_format = json'])
      await session.unsafe(`set auto_explain.${setting}`);
    await session.unsafe(`set role aegis_consumer; set aegis.org_id = 'acme'; set client_min_messages = log`);
    asked = { ...database, as: () => session, lendAs: async (_scope, work) => work(session) };
  });
  afterAll(async () => {
    await session.end();
    await database.close();
    await testDatabase.drop();
  });

  /** The most rows of any table that the statements read. */
  async function read(work: () => Promise<unknown>): Promise<number> {
    plans.length = 0;
    await work();
    expect(plans.length).toBeGreaterThan(0);
    return Math.max(0, ...plans.flatMap((each) => [...rowsRead(each).values()]));
  }

  const fleet = () =>
    createFleet({
      ...{ database: asked, bus: createMemoryBus(() => {}), clock: systemClock, logError: () => {} },
      defaultOrg: 'default-org',
    });

  it('is a page of agents for a page of agents, and not the fleet of all', async () => {
    expect(await read(() => fleet().page(acme, {}, { first: 5 }))).toBeLessThan(200);
  });

  it('is one agent for one agent, by name or by uid', async () => {
    expect(await read(() => fleet().find(acme, 'agent-7'))).toBeLessThan(10);
    const uid = (await fleet().find(acme, 'agent-7'))?.uid ?? '';
    expect(
      await read(async () => expect(await fleet().find(acme, uid)).toMatchObject({ name: 'agent-7' })),
    ).toBeLessThan(10);
  });

  it('is the channels of the agents that are asked for', async () => {
    const { items } = await fleet().page(acme, {}, { first: 5 });
    const uids = items.map(({ uid }) => uid);
    expect(await read(() => fleet().activeChannels(acme, uids))).toBeLessThan(200);
    expect(await read(() => fleet().activeChannels(acme, uids.slice(0, 1)))).toBeLessThan(10);
  });

  it('is planned once and for all, for the channels of one agent', async () => {
    const [uid = ''] = (await fleet().page(acme, {}, { first: 1 })).items.map((agent) => agent.uid);
    for (let time = 0; time < 10; time++) await fleet().activeChannels(acme, [uid]);
    const statements = await session`
      select generic_plans > 0 as is_planned from pg_prepared_statements
      where statement like '%from communication_channels%' and statement like '%channel.agent_id = $%' and custom_plans >= 5`;
    expect(statements).toEqual([{ is_planned: true }]);
  });

  it('is little for a message, however many are open elsewhere', async () => {
    const queries = createAcceptanceQueries(asked, 'default-org', 10_000);
    const accept = async () => {
      const [answer] = await queries.acceptAll(acme, [{ by: acme, agentRef: 'agent-1', message: draft }]);
      expect(answer).toHaveProperty('accepted');
    };
    expect(await read(accept)).toBeLessThan(200);
  });

  it('is little for a message, however many its agent has had, and none that waits is looked at', async () => {
    const { sql } = database;
    await sql`
      insert into message_queue (agent_id, agent_name, org_id, channel, message_type, payload, encrypted_payload, nonce, signature,
        priority, status, processed_at)
      select uid, name, org_id, 'backend.policies', 'request', '1', '', '', '', 1, status,
        case when status = 'delivered' then now() end
      from generate_series(1, 2000) i join agents on name = 'agent-2',
        lateral (select case when i % 10 = 0 then 'pending' else 'delivered' end as status) as given`;
    await sql`vacuum analyze message_queue`;
    const queries = createAcceptanceQueries(asked, 'default-org', 10_000);
    const accept = async () => {
      const [answer] = await queries.acceptAll(acme, [{ by: acme, agentRef: 'agent-2', message: draft }]);
      expect(answer).toHaveProperty('accepted');
    };
    // The 200 that wait are counted, in the index alone.
    expect(await read(accept)).toBeLessThan(250);
    expect(plans.map(rowsOfIndexesAlone)).toContain(200);
  });

  it('is little for a broadcast and its end, however many are open elsewhere', async () => {
    const insert = () =>
      createBroadcastQueries(asked).insert(acme, {}, draft, {}, { maxOpen: 10_000, maxBytes: 1_000_000 });
    expect(await read(async () => expect(await insert()).toHaveProperty('outcome', 'accepted'))).toBeLessThan(
      2 * agents,
    );
    const [made] = await session<{ id: string }[]>`select id from broadcasts`;
    const cancel = () => createBroadcastTransitions(session).cancel(session, acme, made?.id ?? '');
    expect(await read(async () => expect(await cancel()).toBe(true))).toBeLessThan(200);
  });
});
