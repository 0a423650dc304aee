import { type Database, openDatabase } from '../../src/db/database.ts';
import { migrate } from '../../src/db/migrate.ts';
import { createTestDatabase, hasPostgres } from '../support/databases.ts';

export type Engine = 'embedded' | 'postgres';

/** What the contract suites run on: the embedded engine always, and a real Postgres where there is one. */
export const engines: readonly Engine[] = hasPostgres() ? ['embedded', 'postgres'] : ['embedded'];

/** A migrated database of a suite's own. */
export interface EngineDatabase {
  readonly database: Database;
  /** Another client of the same database, as another gateway has it; the same one where the engine has no other. */
  another(): Promise<Database>;
  close(): Promise<void>;
}

export async function openEngine(engine: Engine): Promise<EngineDatabase> {
  const { databaseUrl, drop } = await createTestDatabase({ embedded: engine === 'embedded' });
  const opened: Database[] = [];
  const open = async () => {
    const database = await openDatabase({ databaseUrl, dataDir: 'memory' });
    opened.push(database);
    return database;
  };
  const database = await open();
  await migrate(database);
  return {
    database,
    another: () => (engine === 'embedded' ? Promise.resolve(database) : open()),
    async close() {
      for (const each of opened) await each.close();
      await drop();
    },
  };
}
