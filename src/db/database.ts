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
  close(): Promise<void>;
}

export interface DatabaseOptions {
  /** Null: the embedded engine, in `dataDir`. */
  readonly databaseUrl: string | null;
  readonly dataDir: string;
  /** Called with every statement that is sent: tests count with it. */
  readonly onStatement?: ((text: string) => void) | undefined;
}

const maxConnections = 10;
const connectTimeoutSeconds = 10;
/** For statements under way at the end; those that matter have been waited for by then. */
const endTimeoutSeconds = 2;

/** Opens the database. It does not migrate (`migrate.ts`). */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  const shared = {
    onnotice: () => {},
    // int8 as a number: positions, epochs and counts stay far below 2^53.
    types: { bigint: { to: 20, from: [20], parse: Number, serialize: String } },
    connection: { application_name: 'aegis-gateway', TimeZone: 'UTC' },
    ...(options.onStatement ? { debug: (_connection: number, text: string) => options.onStatement?.(text) } : {}),
  };
  if (options.databaseUrl !== null) {
    const url = options.databaseUrl;
    const connect = (max: number) =>
      postgres(url, { ...shared, max, connect_timeout: connectTimeoutSeconds, idle_timeout: 0 });
    const sql = connect(maxConnections);
    return {
      query: drizzle(sql),
      sql,
      embedded: false,
      async withOneConnection(work) {
        const single = connect(1);
        try {
          return await work(single);
        } finally {
          await single.end({ timeout: endTimeoutSeconds });
        }
      },
      close: () => sql.end({ timeout: endTimeoutSeconds }),
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
  };
}
