import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Database } from '../../src/db/database.ts';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import type { CuttingProxy } from './cutting-proxy.ts';
import { type EngineDatabase, openEngine } from './engines.ts';

/** As many as the client has connections. */
const everyConnection = 10;

describe.skipIf(!hasPostgres())('a database whose connections all end', () => {
  let engine: EngineDatabase;
  let database: Database;
  let proxy: CuttingProxy;

  beforeAll(async () => {
    engine = await openEngine('postgres');
    ({ database, proxy } = await engine.throughProxy());
  });
  afterAll(() => engine.close());

  const isAsked = (times: number) =>
    eventually(async () => {
      const [row] = await engine.database.sql<{ count: number }[]>`
        select count(*) from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()
          and state = 'active' and datname = current_database()`;
      return (row?.count ?? 0) >= times;
    });

  const answersAgain = () =>
    eventually(async () => {
      const answers = Array.from(
        { length: everyConnection },
        (_, number) => database.sql`select ${number}::int as number`,
      );
      const settled = await Promise.allSettled(answers);
      return settled.every(({ status }) => status === 'fulfilled');
    });

  it('fails transactions, nested ones too, and serves again', async () => {
    const work = Array.from({ length: 5 }, (_, number) =>
      database.sql.begin((tx) =>
        number % 2 ? tx`select pg_sleep(60)` : tx.savepoint((nested) => nested`select pg_sleep(60)`),
      ),
    );
    const failed = Promise.allSettled(work);
    await isAsked(work.length);
    proxy.cutAll();
    for (const outcome of await failed) expect(outcome).toMatchObject({ status: 'rejected' });
    await answersAgain();
  });

  it('serves again although everything that failed is asked once more at once', async () => {
    for (let round = 0; round < 3; round++) {
      // Twice: one takes the connection that has closed, the other one that is about to.
      const again = () => Promise.allSettled([1, 2].map((number) => database.sql`select ${number}::int as again`));
      const work = Array.from({ length: everyConnection }, () => database.sql`select pg_sleep(60)`.catch(again));
      await isAsked(everyConnection);
      proxy.cutAll();
      await Promise.all(work);
      await answersAgain();
    }
  });

  it('outlives connections that end while they ask for the types of arrays, as each does first', async () => {
    proxy.cutAll();
    const isCut = proxy.cutAnswer('typarray');
    await answersAgain();
    await isCut;
  });

  it('is soon asked again once it is back, however many connections have failed meanwhile', async () => {
    proxy.refuse();
    proxy.cutAll();
    const failures = Array.from({ length: everyConnection }, () => database.sql`select 1`);
    await Promise.allSettled([...failures, ...failures.map(() => database.sql`select 1`)]);
    proxy.goOn();
    // Far less than the twenty seconds that the driver would wait by itself.
    await eventually(() => database.sql`select 1`.then(() => true), 6_000);
  });
});
