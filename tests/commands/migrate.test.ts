import { rmSync } from 'node:fs';
import { join } from 'node:path';
import postgres from 'postgres';
import { describe, expect, it } from 'vitest';
import { createTestDatabase, hasPostgres } from '../support/databases.ts';
import { run, scratchFolder } from './command-line.ts';

describe('migrate', () => {
  it('makes the embedded database, and finds it up to date the next time', { timeout: 120_000 }, async () => {
    const env = { DATA_DIR: join(scratchFolder(), 'data') };
    for (let time = 0; time < 2; time++) {
      const migrate = run(['migrate'], env);
      expect([await migrate.ended, migrate.stdout, migrate.stderr]).toEqual([0, 'The database is up to date\n', '']);
    }
    rmSync(env.DATA_DIR, { recursive: true });
  });

  it.skipIf(!hasPostgres())(
    'is safe to run several times at once on an empty Postgres',
    { timeout: 120_000 },
    async () => {
      const database = await createTestDatabase();
      const url = database.databaseUrl ?? '';
      const sql = postgres(url, { max: 1, onnotice: () => {} });
      try {
        await sql`drop schema public cascade`;
        await sql`drop schema drizzle cascade`;
        await sql`create schema public`;
        const runs = Array.from({ length: 3 }, () => run(['migrate'], { DATABASE_URL: url }));
        expect(await Promise.all(runs.map(({ ended }) => ended))).toEqual([0, 0, 0]);
        const [row] = await sql`select position from event_stream`;
        expect(Number(row?.position)).toBe(0);
      } finally {
        await sql.end();
        await database.drop();
      }
    },
  );
});
