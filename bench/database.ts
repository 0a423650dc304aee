import { randomBytes } from 'node:crypto';
import postgres from 'postgres';

/** Where the gateways that are measured keep their data. */
export interface BenchDatabases {
  /** For the report: which database this is. */
  readonly description: string;
  /** A new and empty database; null stands for the embedded engine. Drop it when its gateway has stopped. */
  create(): Promise<{ readonly url: string | null; drop(): Promise<void> }>;
}

const defaultUrl = 'postgres://postgres@127.0.0.1:5432/postgres';
const connectTimeoutSeconds = 3;

/**
 * A database of its own for each gateway on the Postgres at TEST_DATABASE_URL, or the local one. Where none is reachable,
 * or `embedded` asks for it: the embedded engine. Rejects where TEST_DATABASE_URL is set and does not answer.
 */
export async function findDatabases(options: { readonly embedded: boolean }): Promise<BenchDatabases> {
  const embeddedEngine: BenchDatabases = {
    description: 'embedded (PGlite, on disk, no fsync)',
    create: async () => ({ url: null, drop: async () => {} }),
  };
  if (options.embedded) return embeddedEngine;
  const given = process.env.TEST_DATABASE_URL;
  const serverUrl = given ?? defaultUrl;
  let description: string;
  try {
    description = await onServer(serverUrl, async (sql) => {
      const [row] = await sql<{ version: string; fsync: string; commit: string }[]>`
        select current_setting('server_version') as version, current_setting('fsync') as fsync,
          current_setting('synchronous_commit') as commit`;
      return `Postgres ${row?.version.split(' ')[0]} (fsync ${row?.fsync}, synchronous_commit ${row?.commit})`;
    });
  } catch (error) {
    if (given !== undefined) throw new Error('the Postgres at TEST_DATABASE_URL does not answer', { cause: error });
    return embeddedEngine;
  }
  return {
    description,
    async create() {
      const name = `aegis_bench_${randomBytes(6).toString('hex')}`;
      await onServer(serverUrl, (sql) => sql`create database ${sql(name)}`);
      const url = new URL(serverUrl);
      url.pathname = `/${name}`;
      return {
        url: url.href,
        drop: async () => {
          await onServer(serverUrl, (sql) => sql`drop database if exists ${sql(name)} with (force)`);
        },
      };
    },
  };
}

async function onServer<Result>(serverUrl: string, work: (sql: postgres.Sql) => Promise<Result>): Promise<Result> {
  const sql = postgres(serverUrl, { max: 1, connect_timeout: connectTimeoutSeconds, onnotice: () => {} });
  try {
    return await work(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}
