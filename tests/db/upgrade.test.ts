import { randomBytes } from 'node:crypto';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { drizzle } from 'drizzle-orm/postgres-js';
import { migrate as runMigrations } from 'drizzle-orm/postgres-js/migrator';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { z } from 'zod';
import { type Database, openDatabase } from '../../src/db/database.ts';
import { migrate } from '../../src/db/migrate.ts';
import { hasPostgres, onServer } from '../support/databases.ts';

const journalFile = z.looseObject({ entries: z.array(z.looseObject({ tag: z.string() })) });

/** The schema as it was before a migration. */
async function migrateUntil(database: Database, tag: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'aegis-upgrade-'));
  try {
    await cp('drizzle', folder, { recursive: true });
    const path = join(folder, 'meta', '_journal.json');
    const journal = journalFile.parse(JSON.parse(await readFile(path, 'utf8')));
    const index = journal.entries.findIndex((entry) => entry.tag === tag);
    expect(index).toBeGreaterThan(0);
    await writeFile(path, JSON.stringify({ ...journal, entries: journal.entries.slice(0, index) }));
    await runMigrations(drizzle(database.sql), { migrationsFolder: folder });
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe.skipIf(!hasPostgres())('a database of an earlier release', () => {
  const serverUrl = inject('postgresUrl') ?? '';
  const name = `aegis_test_${randomBytes(6).toString('hex')}`;
  let database: Database;

  beforeAll(async () => {
    await onServer(serverUrl, (sql) => sql`create database ${sql(name)}`);
    const url = new URL(serverUrl);
    url.pathname = `/${name}`;
    database = await openDatabase({ databaseUrl: url.href, dataDir: 'memory' });
  });
  afterAll(async () => {
    await database.close();
    await onServer(serverUrl, (sql) => sql`drop database ${sql(name)} with (force)`);
  });

  it('knows whose is what is about an agent, once it is migrated', async () => {
    const { sql } = database;
    await migrateUntil(database, '0015_organisations-of-rows');
    await sql`
      insert into agents (org_id, name, enrollment, public_key, key_fingerprint)
      select org, org, 'approved', 'key', 'fingerprint' from unnest('{acme,globex}'::text[]) org`;
    await sql`insert into agent_keys (agent_uid, key_fingerprint, protocol) select uid, 'f', 'v1' from agents`;
    await sql`
      insert into agent_pending_keys (agent_uid, protocol, public_key, key_fingerprint) select uid, 'v1', 'k', 'f' from agents`;
    await sql`insert into bootstrap_tokens (token_hash, agent_uid, key_fingerprint) select name, uid, 'f' from agents`;
    await sql`
      insert into agent_connections (agent_id, public_key, session_token, instance_id, protocol, session_expires_at)
      select uid_text, 'k', 't', 'i', 'v1', now() from agents`;
    await sql`
      insert into communication_channels (agent_id, channel_name, channel_type)
      select uid_text, 'c', 'agent_to_backend' from agents union all select 'of no agent', 'c', 'agent_to_backend'`;

    await migrate(database);
    for (const [table, agent] of [
      ['agent_connections', 'agent_id'],
      ['agent_keys', 'agent_uid'],
      ['agent_pending_keys', 'agent_uid'],
      ['bootstrap_tokens', 'agent_uid'],
      ['communication_channels', 'agent_id'],
    ] as const) {
      const rows = await sql<{ name: string; found: string }[]>`
        select name, agent_org_id as found from agents join ${sql(table)} on ${sql(agent)}::text = uid_text order by name`;
      expect([table, ...rows]).toEqual([table, { name: 'acme', found: 'acme' }, { name: 'globex', found: 'globex' }]);
    }
    expect(await sql`select agent_org_id from communication_channels where agent_id = 'of no agent'`).toEqual([
      { agent_org_id: null },
    ]);
  });
});
