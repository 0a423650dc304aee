import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Database, openDatabase } from '../../src/db/database.ts';
import { hasPostgres } from '../support/databases.ts';
import type { CuttingProxy } from './cutting-proxy.ts';
import { type EngineDatabase, openEngine } from './engines.ts';

describe.skipIf(!hasPostgres())('a database that does not answer', () => {
  let engine: EngineDatabase;
  let proxy: CuttingProxy;
  const opened: Database[] = [];

  beforeAll(async () => {
    engine = await openEngine('postgres');
    ({ proxy } = await engine.throughProxy());
  });
  afterEach(() => proxy.goOn());
  afterAll(async () => {
    for (const database of opened) await database.close();
    await engine.close();
  });

  async function open(answerTimeoutSeconds: number): Promise<Database> {
    const database = await openDatabase({ databaseUrl: proxy.databaseUrl, dataDir: 'memory', answerTimeoutSeconds });
    opened.push(database);
    await database.sql`select 1`;
    return database;
  }

  it('fails statements and transactions after a while, those behind them too, and serves again', async () => {
    const { sql } = await open(0.5);
    // Every connection is there, so that none has to be made while nothing answers.
    await Promise.all(Array.from({ length: 10 }, () => sql`select pg_sleep(0.1)`));
    const transaction = sql.begin(async (tx) => {
      proxy.stall();
      await tx`select 1`;
    });
    await expect(transaction).rejects.toMatchObject({ code: 'CONNECTION_CLOSED' });
    const outcomes = await Promise.allSettled(Array.from({ length: 27 }, () => sql`select 2`.execute()));
    expect(new Set(outcomes.map(({ status }) => status))).toEqual(new Set(['rejected']));
    proxy.goOn();
    expect(await sql`select 3 as number`).toEqual([{ number: 3 }]);
  });

  it('has the time that was given: each statement by itself, and no longer once it is answered', async () => {
    const { sql } = await open(2);
    for (let round = 0; round < 3; round++) expect(await sql`select pg_sleep(0.9)`).toHaveLength(1);
    expect(await sql`select 1 as one`).toEqual([{ one: 1 }]);
    const before = await sql<{ pid: number }[]>`select pg_backend_pid() as pid`;
    expect(await sql`select pg_backend_pid() as pid`).toEqual(before);
  });

  it('is given up at once where the database is abandoned', async () => {
    const database = await open(60);
    proxy.stall();
    const pending = [database.sql`select 1`.execute(), database.query.execute('select 1')];
    await new Promise((resolve) => setImmediate(resolve));
    database.abandon();
    for (const outcome of await Promise.allSettled(pending)) expect(outcome.status).toBe('rejected');
  });

  it('is told to answer in 30 s, and not to keep a transaction that nothing happens in; migrations may take longer', async () => {
    const { sql } = engine.database;
    const settings = (client: typeof sql) =>
      client`select current_setting('statement_timeout') as statement,
        current_setting('idle_in_transaction_session_timeout') as idle`;
    expect(await settings(sql)).toEqual([{ statement: '30s', idle: '10s' }]);
    expect(await engine.database.withOneConnection(settings)).toEqual([{ statement: '0', idle: '0' }]);
  });
});
