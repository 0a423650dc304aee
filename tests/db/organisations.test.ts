import { randomBytes, randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { type Database, openDatabase } from '../../src/db/database.ts';
import { migrate } from '../../src/db/migrate.ts';
import { hasPostgres, onServer } from '../support/databases.ts';
import { type EngineDatabase, openEngine } from './engines.ts';

/** What belongs to no organisation, and consumers are never asked for. */
const unscoped = ['auth_nonces', 'dropped_events', 'event_hours', 'event_stream', 'recent_event_ids', 'v1_keys'];
/** What belongs to none and consumers may see. */
const shared = ['instances'];
/** What belongs to an agent's organisation and goes with it. */
const ofAgents = [
  'agent_connections',
  'agent_keys',
  'agent_pending_keys',
  'bootstrap_tokens',
  'communication_channels',
] as const;

describe.skipIf(!hasPostgres())('Postgres holds consumers to their organisation', () => {
  let engine: EngineDatabase;
  let database: Database;
  const orgs = ['acme', 'globex'] as const;
  const uids = { acme: randomUUID(), globex: randomUUID() };

  beforeAll(async () => {
    engine = await openEngine('postgres');
    database = engine.database;
    expect(await database.bindOrganisations()).toBeNull();
    const { sql } = database;
    await sql`create table events_of_test partition of events_logs for values from (0) to (2)`;
    for (const org of orgs) {
      const uid = uids[org];
      await sql`
        insert into agents (uid, org_id, name, enrollment, public_key, key_fingerprint)
        values (${uid}, ${org}, ${org}, 'approved', 'key', 'fingerprint')`;
      await sql`insert into agent_keys (agent_uid, key_fingerprint, protocol) values (${uid}, 'f', 'v1')`;
      await sql`
        insert into agent_pending_keys (agent_uid, protocol, public_key, key_fingerprint) values (${uid}, 'v1', 'k', 'f')`;
      await sql`insert into bootstrap_tokens (token_hash, agent_uid, key_fingerprint) values (${org}, ${uid}, 'f')`;
      await sql`
        insert into agent_connections (agent_id, public_key, session_token, instance_id, protocol, session_expires_at)
        values (${uid}, 'k', 't', 'i', 'v1', now())`;
      await sql`
        insert into communication_channels (agent_id, channel_name, channel_type) values (${uid}, 'c', 'agent_to_backend')`;
      await sql`
        insert into registrations (org_id, host_id, public_key, nonce, server_time, details, expires_at)
        values (${org}, 'h', 'k', 'n', 't', '{}', now())`;
      await sql`insert into enrollment_tokens (token_hash, org_id, expires_at) values (${org}, ${org}, now())`;
      await sql`
        insert into api_keys (key_hash, prefix, name, org_id, scopes, created_by) values (${org}, 'p', 'n', ${org}, '{}', 'c')`;
      const [broadcast] =
        await sql`insert into broadcasts (org_id, channel) values (${org}, 'backend.tests') returning id`;
      await sql`insert into broadcast_counts values (${broadcast?.id}, 'pending', 1)`;
      await sql`
        insert into message_queue (agent_id, agent_name, org_id, channel, message_type, payload, encrypted_payload, nonce,
          signature, priority, broadcast_id)
        values (${uid}, ${org}, ${org}, 'backend.tests', 'request', '1', '', '', '', 1, ${broadcast?.id})`;
      await sql`
        insert into events (position, hour, kind, org_id, agent_uid, agent_name, message_id, occurred_at, received_at, trusted,
          sealed, severity)
        values (${org === 'acme' ? 1 : 2}, 1, 'logs', ${org}, ${uid}, ${org}, 'm', now(), now(), true,
          false, 0)`;
    }
    await sql`insert into broadcasts (org_id, channel) values (null, 'backend.tests')`;
    await sql`insert into api_keys (key_hash, prefix, name, org_id, scopes, created_by) values ('all', 'p', 'n', null, '{}', 'c')`;
    for (const org of [...orgs, null]) {
      const entry = sql`${org}, 'gateway', 'gateway', 'the gateway', 'agent.note', 'agent', 'a', '{}'::json`;
      await sql`
        insert into audit_pending (org_id, actor_kind, actor_id, actor_label, action, subject_type, subject_id, details)
        values (${entry})`;
      await sql`
        insert into audit_entries (org_id, actor_kind, actor_id, actor_label, action, subject_type, subject_id, details, number, hash)
        values (${entry}, 1, '')`;
    }
    for (const org of orgs) await sql`insert into audit_chains (org_id) values (${org})`;
  });
  afterAll(() => engine.close());

  const tables = async () => {
    const rows = await database.sql<{ name: string; secured: boolean }[]>`
      select relname as name, relrowsecurity as secured from pg_class
      where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition`;
    return rows;
  };
  const scoped = async () =>
    (await tables()).map(({ name }) => name).filter((name) => ![...unscoped, ...shared].includes(name));

  it('in every table that there is, or the table is known to belong to none', async () => {
    const found = await tables();
    for (const { name, secured } of found)
      expect([name, secured]).toEqual([name, ![...unscoped, ...shared].includes(name)]);
    for (const name of unscoped) {
      const [row] = await database.sql`select has_table_privilege('aegis_consumer', ${name}, 'select') as may`;
      expect([name, row?.may]).toEqual([name, false]);
    }
  });

  it('whatever a statement forgets to say', async () => {
    const { sql } = database;
    for (const name of await scoped()) {
      const [all] = await sql<{ count: number }[]>`select count(*) from ${sql(name)}`;
      expect([name, all?.count]).toEqual([
        name,
        ['broadcasts', 'api_keys', 'audit_entries', 'audit_pending'].includes(name) ? 3 : 2,
      ]);
      if (['registrations', 'audit_chains'].includes(name)) {
        await expect(database.as({ orgId: 'acme' })`select count(*) from ${sql(name)}`).rejects.toThrow(
          'permission denied',
        );
        continue;
      }
      for (const orgId of [...orgs, 'nobody', '']) {
        const [seen] = await database.as({ orgId })<{ count: number }[]>`select count(*) from ${sql(name)}`;
        expect([name, orgId, seen?.count]).toEqual([name, orgId, orgs.some((org) => org === orgId) ? 1 : 0]);
      }
    }
  });

  it('in what is about an agent, also where a gateway of an earlier release wrote it, with the agent or later', async () => {
    const { sql } = database;
    const undone = new Error('undone');
    const work = sql.begin(async (tx) => {
      // As that release makes agents: in one statement, which does not say whose the rest is.
      await tx`
        with made as (
          insert into agents (org_id, name, enrollment, public_key, key_fingerprint)
          values ('acme', 'new', 'approved', 'key', 'fingerprint') returning uid
        ), listed as (
          insert into communication_channels (agent_id, channel_name, channel_type)
          select uid, 'c', 'agent_to_backend' from made
        )
        insert into agent_keys (agent_uid, key_fingerprint, protocol) select uid, 'f', 'v1' from made`;
      for (const name of ofAgents) {
        const rows = await tx<{ org: string }[]>`select agent_org_id as org from ${tx(name)} order by org`;
        const news = ['communication_channels', 'agent_keys'].includes(name) ? ['acme'] : [];
        expect([name, rows.map(({ org }) => org)]).toEqual([name, [...news, 'acme', 'globex']]);
      }
      throw undone;
    });
    await expect(work).rejects.toBe(undone);
  });

  it('in what is about an agent, wherever the agent moves', async () => {
    const { sql } = database;
    const undone = new Error('undone');
    const work = sql.begin(async (tx) => {
      await tx`update agents set org_id = 'globex' where uid = ${uids.acme}`;
      for (const name of ofAgents) {
        const rows = await tx`select from ${tx(name)} where agent_org_id = 'globex'`;
        expect([name, rows.length]).toEqual([name, 2]);
      }
      throw undone;
    });
    await expect(work).rejects.toBe(undone);
  });

  it('in what they write as well', async () => {
    const acme = database.as({ orgId: 'acme' });
    expect(
      (await acme`update agents set note = 'mine' where true returning org_id`).map(({ org_id }) => org_id),
    ).toEqual(['acme']);
    expect(await acme`update message_queue set failure = 'x' where org_id = 'globex' returning id`).toHaveLength(0);
    expect(await acme`delete from bootstrap_tokens where agent_uid = ${uids.globex} returning 1`).toHaveLength(0);
    await expect(acme`update agents set org_id = 'globex'`).rejects.toThrow('row-level security');
    await expect(
      acme`insert into enrollment_tokens (token_hash, org_id, expires_at) values ('x', 'globex', now())`,
    ).rejects.toThrow('row-level security');
    await expect(
      acme`insert into api_keys (key_hash, prefix, name, org_id, scopes, created_by) values ('x', 'p', 'n', null, '{}', 'c')`,
    ).rejects.toThrow('row-level security');
    await expect(
      acme`
        insert into audit_pending (org_id, actor_kind, actor_id, actor_label, action, subject_type, subject_id, details)
        values ('globex', 'gateway', 'gateway', 'the gateway', 'agent.note', 'agent', 'a', '{}')`,
    ).rejects.toThrow('row-level security');
    for (const table of ['audit_entries', 'audit_pending'])
      await expect(acme`delete from ${database.sql(table)}`).rejects.toThrow('permission denied');
    await expect(acme`insert into audit_entries select * from audit_entries`).rejects.toThrow('permission denied');
    await expect(acme`delete from agents`).rejects.toThrow('permission denied');
    await expect(acme`drop table agents`).rejects.toThrow('must be owner');
  });

  it('also where a message of theirs belongs to a broadcast of all organisations', async () => {
    const { sql } = database;
    const [broadcast] = await sql`select id from broadcasts where org_id is null`;
    await sql`update message_queue set broadcast_id = ${broadcast?.id} where org_id = 'globex'`;
    await database.as({
      orgId: 'globex',
    })`update message_queue set status = 'cancelled', processed_at = now() where true`;
    const [counted] =
      await sql`select count from broadcast_counts where broadcast_id = ${broadcast?.id} and status = 'cancelled'`;
    expect(counted?.count).toBe(1);
    expect(await database.as({ orgId: 'globex' })`select from broadcasts where id = ${broadcast?.id}`).toHaveLength(0);
  });

  it('and refuses where no organisation is named at all', async () => {
    await expect(
      database.sql.begin(async (tx) => {
        await tx`set local role aegis_consumer`;
        return tx`select from agents`;
      }),
    ).rejects.toThrow('aegis.org_id');
  });

  it('while many ask at once, in transactions too, and some fail', async () => {
    const asked = Array.from({ length: 200 }, async (_, index) => {
      const org = orgs[index % 2] ?? 'acme';
      if (index % 7 === 0) await database.as({ orgId: org })`select 1 / 0 from agents`.catch(() => {});
      if (index % 5 === 0)
        return database.lendAs({ orgId: org }, (client) =>
          client.begin(async (tx) => (await tx`select org_id from agents`).map((row) => [org, row.org_id])),
        );
      return (await database.as({ orgId: org })`select org_id from agents`).map((row) => [org, row.org_id]);
    });
    const found = (await Promise.all(asked)).flat();
    expect(found).toHaveLength(200);
    for (const [org, seen] of found) expect(seen).toBe(org);
  });

  it('again after its connections were lost', async () => {
    const { database: cut, proxy } = await engine.throughProxy();
    expect(await cut.bindOrganisations()).toBeNull();
    const seen = async (orgId: string) =>
      (await cut.as({ orgId })`select org_id from agents`).map(({ org_id }) => org_id);
    expect(await seen('acme')).toEqual(['acme']);
    proxy.cutAll();
    await expect.poll(() => seen('acme').catch(() => null)).toEqual(['acme']);
    expect(await seen('globex')).toEqual(['globex']);
  });

  it('leaves consumers of all organisations to the statements themselves', async () => {
    expect(await database.as({ orgId: null })`select from agents`).toHaveLength(2);
  });
});

describe.skipIf(!hasPostgres())('where the gateway may not use the role', () => {
  it('says so, and serves consumers all the same', async () => {
    const server = inject('postgresUrl') ?? '';
    const name = `aegis_plain_${randomBytes(4).toString('hex')}`;
    await onServer(server, async (sql) => {
      await sql.unsafe(`create role ${name} login password 'x' nosuperuser nocreaterole`);
      await sql.unsafe(`create database ${name} owner ${name}`);
    });
    try {
      const url = new URL(server);
      Object.assign(url, { username: name, password: 'x', pathname: `/${name}` });
      const database = await openDatabase({ databaseUrl: url.href, dataDir: 'memory' });
      await migrate(database);
      expect(await database.bindOrganisations()).toContain('role "aegis_consumer"');
      expect(await database.as({ orgId: 'acme' })`select from agents`).toHaveLength(0);
      await onServer(server, (sql) => sql.unsafe(`grant aegis_consumer to ${name}`));
      expect(await database.bindOrganisations()).toBeNull();
      await database.close();
    } finally {
      await onServer(server, async (sql) => {
        await sql.unsafe(`drop database ${name} with (force)`);
        await sql.unsafe(`drop role ${name}`);
      });
    }
  });
});
