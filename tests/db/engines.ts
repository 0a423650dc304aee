import { type Database, openDatabase } from '../../src/db/database.ts';
import { migrate } from '../../src/db/migrate.ts';
import { createTestDatabase, hasPostgres } from '../support/databases.ts';
import { type CuttingProxy, startCuttingProxy } from './cutting-proxy.ts';

export type Engine = 'embedded' | 'postgres';

/** What the contract suites run on: the embedded engine always, and a real Postgres where there is one. */
export const engines: readonly Engine[] = hasPostgres() ? ['embedded', 'postgres'] : ['embedded'];

/** A migrated database of a suite's own. */
export interface EngineDatabase {
  readonly database: Database;
  /** Another client of the same database, as another gateway has it; the same one where the engine has no other. */
  another(onStatement?: (text: string) => void): Promise<Database>;
  /** Another client that comes through a proxy that can lose answers; a real Postgres only. */
  throughProxy(): Promise<{ readonly database: Database; readonly proxy: CuttingProxy }>;
  close(): Promise<void>;
}

export async function openEngine(engine: Engine): Promise<EngineDatabase> {
  const { databaseUrl, dataDir, drop } = await createTestDatabase({ embedded: engine === 'embedded' });
  const opened: Database[] = [];
  const proxies: CuttingProxy[] = [];
  const open = async (url = databaseUrl, onStatement?: (text: string) => void) => {
    const database = await openDatabase({ databaseUrl: url, dataDir, onStatement });
    opened.push(database);
    return database;
  };
  const database = await open();
  await migrate(database);
  return {
    database,
    another: (onStatement) => (engine === 'embedded' ? Promise.resolve(database) : open(databaseUrl, onStatement)),
    async throughProxy() {
      if (databaseUrl === null) throw new Error('the embedded engine has no connection to cut');
      const proxy = await startCuttingProxy(databaseUrl);
      proxies.push(proxy);
      return { database: await open(proxy.databaseUrl), proxy };
    },
    async close() {
      for (const each of opened) await each.close();
      for (const proxy of proxies) await proxy.close();
      await drop();
    },
  };
}
