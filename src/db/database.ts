import { drizzle, type PostgresJsDatabase } from 'drizzle-orm/postgres-js';
import postgres from 'postgres';
import type { Scope } from '../access/scope.ts';
import { type BoundSessions, createBoundSessions } from './bound-sessions.ts';
import { consumerRole } from './consumer-role.ts';
import { startEmbeddedDatabase } from './embedded.ts';

/** Asks one statement, as `sql` does; the fragments in it are made with `sql`. */
export type Ask = <Rows extends readonly (object | undefined)[] = postgres.Row[]>(
  template: TemplateStringsArray,
  ...parameters: readonly postgres.ParameterOrFragment<never>[]
) => Promise<postgres.RowList<Rows>>;

/**
 * Postgres, real or embedded, through one driver. `query` builds ordinary statements; `sql` is for those that are written by
 * hand. Inside `sql.begin` use nothing but the transaction that it gives: the embedded engine has one connection.
 */
export interface Database {
  readonly query: PostgresJsDatabase;
  readonly sql: postgres.Sql;
  /**
   * Asks for a consumer. Where it is of one organisation, Postgres shows and changes that organisation's rows alone, whatever
   * the statement says, once `bindOrganisations` has succeeded.
   */
  as(scope: Scope): Ask;
  /** The same for work of several statements, say a transaction. */
  lendAs<Result>(scope: Scope, work: (sql: postgres.Sql) => PromiseLike<Result>): Promise<Result>;
  /** Has Postgres hold consumers to their organisation from now on; gives null, or why it cannot. */
  bindOrganisations(): Promise<string | null>;
  /** Whether the embedded engine serves: one process alone, no fsync. */
  readonly embedded: boolean;
  /** Runs `work` with a client of one connection, on which session state such as an advisory lock holds. */
  withOneConnection<Result>(work: (sql: postgres.Sql) => Promise<Result>): Promise<Result>;
  /** Resolves when the database has answered the least that it can be asked. */
  ping(): Promise<void>;
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
/** For consumers of one organisation, opened when they are needed. */
const maxBoundSessions = 10;
const connectTimeoutSeconds = 10;
/**
 * The driver's own pauses between attempts grow with those of all connections together, so that an outage of two seconds would
 * be followed by up to twenty more.
 */
const pauseBeforeConnecting = (failures: number) => Math.min(0.05 * 2 ** failures, 1) * (0.5 + Math.random() / 2);
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
    const remote = {
      ...{ ...shared, connect_timeout: connectTimeoutSeconds, keep_alive: keepAliveSeconds, idle_timeout: 0 },
      backoff: pauseBeforeConnecting,
    };
    // `answer_timeout` is ours (scripts/patch-dependencies.js).
    const patience = { answer_timeout: options.answerTimeoutSeconds ?? answerTimeoutSeconds };
    const settings = {
      ...connection,
      statement_timeout: statementTimeoutMs,
      idle_in_transaction_session_timeout: idleTransactionTimeoutMs,
    };
    const sql = postgres(url, { ...remote, ...patience, max: maxConnections, connection: settings });
    const bound = createBinding(sql, (onClosed) =>
      postgres(url, {
        ...{ ...remote, ...patience, max: 1, onclose: onClosed },
        connection: { ...settings, role: consumerRole },
      }),
    );
    return {
      query: drizzle(sql),
      sql,
      as: bound.as,
      lendAs: bound.lendAs,
      bindOrganisations: bound.bind,
      embedded: false,
      async withOneConnection(work) {
        const single = postgres(url, { ...remote, max: 1 });
        try {
          return await work(single);
        } finally {
          await single.end({ timeout: endTimeoutSeconds });
        }
      },
      async ping() {
        await sql`select`;
      },
      async close() {
        await Promise.all([sql.end({ timeout: endTimeoutSeconds }), bound.close(endTimeoutSeconds)]);
      },
      abandon() {
        void sql.end({ timeout: 0 });
        void bound.close(0);
      },
    };
  }
  const engine = await startEmbeddedDatabase(options.dataDir);
  // `socket` is an option of postgres.js that its types leave out.
  const socket = { socket: () => engine.connect() };
  const sql = postgres({ ...shared, ...socket, user: 'postgres', database: 'postgres', max: 1, max_lifetime: null });
  return {
    query: drizzle(sql),
    sql,
    as: () => sql,
    lendAs: async (_scope, work) => work(sql),
    bindOrganisations: async () => 'the embedded database has one user alone',
    embedded: true,
    withOneConnection: (work) => work(sql),
    async ping() {
      await sql`select`;
    },
    async close() {
      await sql.end({ timeout: endTimeoutSeconds });
      await engine.close();
    },
    // It is in this process: nothing can come between.
    abandon: () => {},
  };
}

/** What asks for consumers: as the owner, until it is bound. */
function createBinding(sql: postgres.Sql, connect: (onClosed: () => void) => postgres.Sql) {
  let sessions: BoundSessions | null = null;

  async function lendAs<Result>(
    { orgId }: Scope,
    work: (client: postgres.Sql) => PromiseLike<Result>,
  ): Promise<Result> {
    return orgId === null || sessions === null ? work(sql) : sessions.lend(orgId, work);
  }

  return {
    lendAs,
    as(scope: Scope): Ask {
      const { orgId } = scope;
      if (orgId === null) return sql;
      return (template, ...parameters) =>
        sessions === null
          ? sql(template, ...parameters)
          : sessions.ask(orgId, (client) => client(template, ...parameters));
    },
    async bind(): Promise<string | null> {
      const opened = createBoundSessions(connect, maxBoundSessions);
      try {
        // Of no organisation.
        await opened.lend('', (client) => client`select from agents limit 1`);
        sessions = opened;
        return null;
      } catch (error) {
        await opened.close(endTimeoutSeconds);
        return error instanceof Error ? error.message : String(error);
      }
    },
    close: async (timeoutSeconds: number) => sessions?.close(timeoutSeconds),
  };
}
