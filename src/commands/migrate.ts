import type { Config } from '../config.ts';
import { openDatabase } from '../db/database.ts';
import { migrate } from '../db/migrate.ts';

/** Brings the schema up to date and stops. */
export async function migrateOnce(config: Config): Promise<number> {
  const database = await openDatabase(config);
  try {
    await migrate(database);
    process.stdout.write('The database is up to date\n');
    return 0;
  } finally {
    await database.close();
  }
}
