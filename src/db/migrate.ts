import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { drizzle } from 'drizzle-orm/postgres-js';
import { migrate as runMigrations } from 'drizzle-orm/postgres-js/migrator';
import { z } from 'zod';
import { prepareConsumerRole } from './consumer-role.ts';
import type { Database } from './database.ts';

/** Any number will do, as long as every gateway uses the same: held while migrations run. */
const migrationLock = 4_152_870_331;

const migrationsFolder = fileURLToPath(new URL('../../drizzle', import.meta.url));

const journal = z.object({ entries: z.array(z.object({ when: z.number(), tag: z.string() })) });

/**
 * Brings the schema up to date. Safe when several gateways start at once: one migrates, the others wait.
 * Throws where the journal does not grow in time, since drizzle would skip such a migration without a word.
 */
export async function migrate(database: Database): Promise<void> {
  checkJournal(readFileSync(join(migrationsFolder, 'meta', '_journal.json'), 'utf8'));
  await database.withOneConnection(async (sql) => {
    await sql`select pg_advisory_lock(${migrationLock})`;
    try {
      await runMigrations(drizzle(sql), { migrationsFolder });
      if (!database.embedded) await prepareConsumerRole(sql);
    } finally {
      await sql`select pg_advisory_unlock(${migrationLock})`;
    }
  });
}

/** Throws where a migration of the journal, drizzle's `meta/_journal.json`, is not newer than the one before it. */
export function checkJournal(journalText: string): void {
  const { entries } = journal.parse(JSON.parse(journalText));
  const late = entries.find((entry, index) => entry.when <= (entries[index - 1]?.when ?? 0));
  if (late) throw new Error(`Migration ${late.tag} is not newer than the one before it and would be skipped`);
}
