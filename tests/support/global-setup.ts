import { randomBytes } from 'node:crypto';
import { createConnection } from 'node:net';
import type { TestProject } from 'vitest/node';
import { openDatabase } from '../../src/db/database.ts';
import { migrate } from '../../src/db/migrate.ts';
import { onServer } from './databases.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    postgresUrl: string | null;
    templateName: string;
    redisUrl: string | null;
  }
}

/** Finds the services that the tests may use, and makes the template of which each test's database is a copy. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const postgresUrl = await reachable(
    process.env.TEST_DATABASE_URL ?? 'postgres://postgres@127.0.0.1:5432/postgres',
    'Postgres',
  );
  const redisUrl = await reachable(process.env.TEST_REDIS_URL ?? 'redis://127.0.0.1:6379', 'Redis');
  const templateName = `aegis_template_${randomBytes(6).toString('hex')}`;
  project.provide('postgresUrl', postgresUrl);
  project.provide('redisUrl', redisUrl);
  project.provide('templateName', templateName);
  if (postgresUrl === null) return async () => {};

  await onServer(postgresUrl, (sql) => sql`create database ${sql(templateName)}`);
  const url = new URL(postgresUrl);
  url.pathname = `/${templateName}`;
  const database = await openDatabase({ databaseUrl: url.href, dataDir: 'memory' });
  await migrate(database);
  await database.close();
  return () => onServer(postgresUrl, (sql) => sql`drop database if exists ${sql(templateName)} with (force)`);
}

async function reachable(url: string, service: string): Promise<string | null> {
  const { hostname, port } = new URL(url);
  const socket = createConnection({ host: hostname, port: Number(port), timeout: 2_000 });
  const isOpen = await new Promise<boolean>((resolve) => {
    socket.once('connect', () => resolve(true));
    for (const end of ['error', 'timeout'] as const) socket.once(end, () => resolve(false));
  });
  socket.destroy();
  if (isOpen) return url;
  if (process.env.CI)
    throw new Error(`${service} is not reachable at ${hostname}:${port}, and CI tests on the real one`);
  process.stderr.write(
    `${service} is not reachable at ${hostname}:${port}: what needs it is tested on the embedded default\n`,
  );
  return null;
}
