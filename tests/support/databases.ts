import { randomBytes } from 'node:crypto';
import postgres from 'postgres';
import { inject } from 'vitest';
import { copyOfEmbeddedTemplate } from './embedded-template.ts';

/** Where a test's gateway keeps its data, and how to look into it from outside. */
export interface TestDatabase {
  /** Null: the embedded engine. */
  readonly databaseUrl: string | null;
  /** Where the embedded engine has its data; `memory` on a real Postgres. */
  readonly dataDir: string;
  drop(): Promise<void>;
}

/** Whether a real Postgres serves the tests. Without one they run on the embedded engine; CI refuses to. */
export function hasPostgres(): boolean {
  return inject('postgresUrl') !== null;
}

/** A database of the test's own: a copy of the migrated template on a real Postgres, else the embedded engine. */
export async function createTestDatabase(options: { readonly embedded?: boolean } = {}): Promise<TestDatabase> {
  const serverUrl = inject('postgresUrl');
  if (serverUrl === null || options.embedded) {
    const { dataDir, drop } = await copyOfEmbeddedTemplate();
    return { databaseUrl: null, dataDir, drop: async () => drop() };
  }
  const name = `aegis_test_${randomBytes(6).toString('hex')}`;
  await onServer(serverUrl, (sql) => sql`create database ${sql(name)} template ${sql(inject('templateName'))}`);
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return {
    databaseUrl: url.href,
    dataDir: 'memory',
    drop: () => onServer(serverUrl, (sql) => sql`drop database if exists ${sql(name)} with (force)`),
  };
}

export async function onServer(serverUrl: string, work: (sql: postgres.Sql) => Promise<unknown>): Promise<void> {
  const sql = postgres(serverUrl, { max: 1, onnotice: () => {} });
  try {
    await work(sql);
  } finally {
    await sql.end();
  }
}
