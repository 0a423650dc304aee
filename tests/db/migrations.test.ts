import { randomBytes } from 'node:crypto';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { drizzle } from 'drizzle-orm/postgres-js';
import { migrate as runMigrations } from 'drizzle-orm/postgres-js/migrator';
import { describe, expect, inject, it } from 'vitest';
import { z } from 'zod';
import { chainStart, nextPlace } from '../../src/audit/seal.ts';
import { createSealer } from '../../src/audit/sealer.ts';
import { verifyChains } from '../../src/audit/verify.ts';
import { systemClock } from '../../src/clock.ts';
import { type Database, openDatabase } from '../../src/db/database.ts';
import { migrate } from '../../src/db/migrate.ts';
import { newEvent, startEvents, stillClock } from '../events/stage.ts';
import { onServer } from '../support/databases.ts';
import { engines } from './engines.ts';

/** A folder with the migrations before one of them, as a version of that time had it. */
function migrationsBefore(tag: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'aegis-migrations-'));
  cpSync('drizzle', folder, { recursive: true });
  const file = join(folder, 'meta', '_journal.json');
  const journal = z
    .looseObject({ entries: z.array(z.looseObject({ tag: z.string() })) })
    .parse(JSON.parse(readFileSync(file, 'utf8')));
  const entries = journal.entries.slice(
    0,
    journal.entries.findIndex((entry) => entry.tag === tag),
  );
  writeFileSync(file, JSON.stringify({ ...journal, entries }));
  return folder;
}

/** Works with a database on which the migrations before one of them have run. */
async function withDatabaseBefore(tag: string, work: (database: Database) => Promise<void>): Promise<void> {
  const serverUrl = inject('postgresUrl') ?? '';
  const name = `aegis_test_${randomBytes(6).toString('hex')}`;
  await onServer(serverUrl, (sql) => sql`create database ${sql(name)}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  const database = await openDatabase({ databaseUrl: url.href, dataDir: 'memory' });
  const folder = migrationsBefore(tag);
  try {
    await database.withOneConnection((sql) => runMigrations(drizzle(sql), { migrationsFolder: folder }));
    await work(database);
  } finally {
    rmSync(folder, { recursive: true });
    await database.close();
    await onServer(serverUrl, (sql) => sql`drop database ${sql(name)} with (force)`);
  }
}

describe.runIf(engines.includes('postgres'))('the migration to partitions', () => {
  it('keeps events, their order and the ids that are known, and goes on from there', () =>
    withDatabaseBefore('0006_event_partitions', async (database) => {
      const { sql } = database;
      const known = newEvent({ agentUid: '00000000-0000-4000-8000-000000000001', kind: 'threats' });
      await sql`
        insert into events (position, kind, org_id, agent_uid, agent_name, message_id, occurred_at, received_at, trusted, sealed,
          severity, payload)
        select place, case when place % 2 = 0 then 'logs' else 'threats' end, 'default-org', ${known.agentUid}, 'a', 'm' || place,
          now(), now() - interval '400 days', true, false, 0, '{"a":  1}'
        from generate_series(1, 1000) as place`;
      await sql`update event_stream set position = 1000`;
      await sql`
        insert into recent_event_ids (key, body_hash, received_at) values (${known.key}, ${known.bodyHash}, now()),
          (gen_random_uuid(), gen_random_uuid(), now() - interval '2 days')`;

      await migrate(database);
      const rows = await sql<{ position: number; kind: string; text: string }[]>`
        select position, kind, payload::text as text from events order by position`;
      expect(rows.map((row) => row.position)).toEqual(Array.from({ length: 1_000 }, (_, index) => index + 1));
      expect(rows[0]).toEqual({ position: 1, kind: 'threats', text: '{"a":  1}' });
      expect(await sql`select key from recent_event_ids`).toEqual([{ key: known.key }]);

      const stage = await startEvents(database, { clock: stillClock });
      expect(await stage.store(known, newEvent({ agentUid: known.agentUid }))).toEqual(['duplicate', 'stored']);
      const page = await stage.events.page({ orgId: null }, {}, { last: 2 });
      expect(page.items.map(({ position }) => position)).toEqual([1_000, 1_001]);
      await stage.stop(1_000);
      expect(stage.errors).toEqual([]);
    }));
});

describe.runIf(engines.includes('postgres'))('the migration to entries that are pending', () => {
  it('keeps what is sealed and what is not, and goes on from there', () =>
    withDatabaseBefore('0011_audit-pending', async (database) => {
      const { sql } = database;
      const place = nextPlace(chainStart, {
        ...{
          id: 1,
          chain: 'acme',
          at: '2026-11-23T12:10:34.000001Z',
          actorKind: 'gateway',
          actorId: 'g',
          actorLabel: 'g',
        },
        ...{
          address: null,
          requestId: null,
          action: 'agent.note',
          subjectType: 'agent',
          subjectId: 'a',
          subjectName: null,
        },
        ...{ outcome: 'OK', details: '{"a":  1}' },
      });
      await sql`
        insert into audit_entries (org_id, at, actor_kind, actor_id, actor_label, action, subject_type, subject_id, details, number, hash)
        select 'acme', '2026-11-23T12:10:34.000001Z', 'gateway', 'g', 'g', 'agent.note', 'agent', 'a', '{"a":  1}', number, hash
        from (values (1, ${place.hash}), (null, null)) as sealed (number, hash)`;
      await sql`insert into audit_chains (org_id, number, hash) values ('acme', 1, ${place.hash})`;

      await migrate(database);
      expect(await verifyChains(database, [])).toMatchObject([
        { orgId: 'acme', verified: 1, unsealed: 1, fault: null },
      ]);
      await createSealer({ database, clock: systemClock, retentionMs: null, logError: () => {} }).seal();
      expect(await verifyChains(database, [])).toMatchObject([
        { orgId: 'acme', verified: 2, unsealed: 0, fault: null },
      ]);
    }));
});
