import type { Database } from '../../src/db/database.ts';

/** What becomes of one statement: it works, it fails without effect, or it takes effect and its answer is lost. */
export type Fault = 'none' | 'before' | 'after';

/** A database whose statements fail as `nextFault` says. Transactions of several statements are left alone. */
export function faultyDatabase(database: Database, nextFault: () => Fault): Database {
  const sql = new Proxy(database.sql, {
    apply(target, thisArg, given) {
      const query = Reflect.apply(target, thisArg, given);
      // Fragments are made in the same way and never awaited.
      const run = query.then?.bind(query);
      if (run)
        Object.defineProperty(query, 'then', {
          value: (resolved: (rows: unknown) => unknown, rejected: (error: unknown) => unknown) =>
            answer(run, nextFault()).then(resolved, rejected),
        });
      return query;
    },
  });
  return { ...database, sql };
}

async function answer(
  run: (resolved: (rows: unknown) => void, rejected: (error: unknown) => void) => unknown,
  fault: Fault,
): Promise<unknown> {
  if (fault === 'before') throw new Error('the statement was lost');
  const rows = await new Promise<unknown>((resolve, reject) => void run(resolve, reject));
  if (fault === 'after') throw new Error('the answer was lost');
  return rows;
}
