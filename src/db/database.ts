import { drizzle, type PostgresJsDatabase } from 'drizzle-orm/postgres-js';
import postgres from 'postgres';
import { startEmbeddedDatabase } from './embedded.ts';

/**
 * Postgres, real or embedded, through one driver. `query` builds ordinary statements; `sql` is for those that are written by
 * hand. Inside `sql.begin` use nothing but the transaction that it gives: the embedded engine has one connection.
 */
export interface Database {
  readonly query: PostgresJsDatabase;
  readonly sql: postgres.Sql;
  /** Whether the embedded engine serves: one process alone, no fsync. */
  readonly embedded: boolean;
  /** Runs `work` with a client of one connection, on which session state such as an advisory lock holds. */
  withOneConnection<Result>(work: (sql: postgres.Sql) => Promise<Result>): Promise<Result>;
  /** Ends every connection, one with a statement under way after 2 s at the latest. */
  close(): Promise<void>;
  /** Ends every connection at once: what waits for a database that does not answer fails. */
  abandon(): void;
}

export interface DatabaseOptions {
  /** Null: the embedded engine, in `dataDir`. */
  readonly databaseUrl: string | null;
  readonly dataDir: string;
  /** Called with every statement that is sent: tests count with it. */
  readonly onStatement?: ((text: string) => void) | undefined;
  /** After so long without an answer a connection is taken for dead; 40 where absent. */
  readonly answerTimeoutSeconds?: number;
}

const maxConnections = 10;
const connectTimeoutSeconds = 10;
/** For statements under way at the end; those that matter have been waited for by then. */
const endTimeoutSeconds = 2;
/** A connection on which nothing is under way is asked after so long whether its peer is still there. */
const keepAliveSeconds = 10;
/**
 * Postgres answers in this time, if only that it was not done: a statement that is not answered after a little more has nobody at the
 * other end, be it that the host vanished, the network cut it off or the process was stopped.
 */
const statementTimeoutMs = 30_000;
const answerTimeoutSeconds = 40;
/** A gateway that sleeps in the middle of a transaction must not hold up the others for as long. */
const idleTransactionTimeoutMs = 10_000;

/** Opens the database. It does not migrate (`migrate.ts`). */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const connection = { application_name: 'aegis-gateway', TimeZone: 'UTC' };
  const shared = {
    onnotice: () => {},
    // int8 as a number: positions, epochs and counts stay far below 2^53.
    types: { bigint: { to: 20, from: [20], parse: Number, serialize: String } },
    connection,
    ...(options.onStatement ? { debug: (_connection: number, text: string) => options.onStatement?.(text) } : {}),
  };
  if (options.databaseUrl !== null) {
    const url = options.databaseUrl;
    const remote = { ...shared, connect_timeout: connectTimeoutSeconds, keep_alive: keepAliveSeconds, idle_timeout: 0 };
    // `answer_timeout` is ours (scripts/patch-dependencies.js).
    const patience = { answer_timeout: options.answerTimeoutSeconds ?? answerTimeoutSeconds };
    const sql = postgres(url, {
      ...remote,
      ...patience,
      max: maxConnections,
      connection: {
        ...connection,
        statement_timeout: statementTimeoutMs,
        idle_in_transaction_session_timeout: idleTransactionTimeoutMs,
      },
    });
    return {
      query: drizzle(sql),
      sql,
      embedded: false,
      async withOneConnection(work) {
        const single = postgres(url, { ...remote, max: 1 });
        try {
          return await work(single);
        } finally {
          await single.end({ timeout: endTimeoutSeconds });
        }
      },
      close: () => sql.end({ timeout: endTimeoutSeconds }),
      abandon: () => void sql.end({ timeout: 0 }),
    };
  }
  const engine = await startEmbeddedDatabase(options.dataDir);
  // `socket` is an option of postgres.js that its types leave out.
  const socket = { socket: () => engine.connect() };
  const sql = postgres({ ...shared, ...socket, user: 'postgres', database: 'postgres', max: 1, max_lifetime: null });
  return {
    query: drizzle(sql),
    sql,
    embedded: true,
    withOneConnection: (work) => work(sql),
    async close() {
      await sql.end({ timeout: endTimeoutSeconds });
      await engine.close();
    },
    // It is in this process: nothing can come between.
    abandon: () => {},
  };
}
