import { fork } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Database, openDatabase } from '../../src/db/database.ts';
import { migrate } from '../../src/db/migrate.ts';
import { copyOfEmbeddedTemplate } from '../support/embedded-template.ts';

/** In another process: opens the directory given to it, tells what came of it, and stays until it is killed. */
const opener = `
  import { openDatabase } from '${new URL('../../src/db/database.ts', import.meta.url).href}';
  openDatabase({ databaseUrl: null, dataDir: process.argv.at(-1) }).then(
    () => process.send('open'),
    (error) => process.send(error.name + ': ' + error.message),
  );
  setInterval(() => {}, 1_000);
`;

describe('the embedded database', () => {
  const root = mkdtempSync(join(tmpdir(), 'aegis-embedded-'));
  const script = join(root, 'opener.mts');
  let directory: string;
  let dropDirectory: () => void;
  const opened: Database[] = [];

  beforeEach(async () => {
    ({ dataDir: directory, drop: dropDirectory } = await copyOfEmbeddedTemplate());
  });
  afterAll(() => rmSync(root, { recursive: true, force: true }));
  afterEach(async () => {
    for (const database of opened.splice(0)) await database.close().catch(() => {});
    dropDirectory();
  });

  const lockFile = () => join(directory, 'postgres.lock');
  async function open(): Promise<Database> {
    const database = await openDatabase({ databaseUrl: null, dataDir: directory });
    opened.push(database);
    return database;
  }
  function elsewhere() {
    writeFileSync(script, opener);
    const child = fork(script, [directory], { execArgv: ['--import', 'tsx'] });
    const answer = new Promise<string>((resolve) => child.once('message', (text) => resolve(String(text))));
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    return { child, answer, ended };
  }

  it('keeps data over a close and a new start, and lets go of its lock', async () => {
    const first = await open();
    await first.sql`insert into instances (id, version, lease_until) values ('kept', '1', now())`;
    expect(readFileSync(lockFile(), 'utf8')).toBe(String(process.pid));
    expect(statSync(lockFile()).mode & 0o777).toBe(0o600);
    await first.close();
    expect(existsSync(lockFile())).toBe(false);

    const second = await open();
    await migrate(second);
    expect(await second.sql`select id from instances`).toMatchObject([{ id: 'kept' }]);
  });

  it('is refused to a second process, and taken over from one that was killed', async () => {
    const { child, answer, ended } = elsewhere();
    try {
      expect(await answer).toBe('open');
      await expect(open()).rejects.toThrow(`in use by process ${child.pid} (${lockFile()})`);
    } finally {
      child.kill('SIGKILL');
      await ended;
    }
    expect(readFileSync(lockFile(), 'utf8')).toBe(String(child.pid));
    const database = await open();
    expect(await database.sql`select 1 as one`).toMatchObject([{ one: 1 }]);
    expect(readFileSync(lockFile(), 'utf8')).toBe(String(process.pid));

    const other = elsewhere();
    try {
      expect(await other.answer).toContain(
        `DatabaseLockedError: The embedded database is in use by process ${process.pid}`,
      );
    } finally {
      other.child.kill('SIGKILL');
      await other.ended;
    }
  });

  it('takes values of every kind and comes back from errors and failed transactions', async () => {
    const { sql } = await open();
    const [row] = await sql`select ${1}::int as a, ${'é😀'}::text as b, ${null}::text as c, 2::bigint as d,
      ${'{"x":[1]}'}::text::jsonb as e, ${['p', 'q']}::text[] as f`;
    expect(row).toEqual({ a: 1, b: 'é😀', c: null, d: 2, e: { x: [1] }, f: ['p', 'q'] });
    await expect(sql`select nonsense`).rejects.toMatchObject({ code: '42703' });
    await sql`create table numbers (n int primary key)`;
    const failing = sql.begin(async (tx) => {
      await tx`insert into numbers values (1)`;
      await tx`insert into numbers values (1)`;
    });
    await expect(failing).rejects.toMatchObject({ code: '23505' });
    const large = 'x'.repeat(3_000_000);
    const answers = await Promise.all([
      sql`select count(*) as count from numbers`,
      sql`select length(${large}::text) as length`,
      sql`select repeat('y', 3000000) as text`,
    ]);
    expect(answers[0]).toMatchObject([{ count: 0 }]);
    expect(answers[1]).toMatchObject([{ length: 3_000_000 }]);
    expect(answers[2]?.[0]?.text).toHaveLength(3_000_000);
  });

  it('closes however often it is asked, while statements are under way too', async () => {
    const database = await open();
    const running = database.sql`select count(*) from generate_series(1, 200000)`.execute();
    await Promise.allSettled([database.close(), running]);
    await database.close();
    await expect(database.sql`select 1`.execute()).rejects.toThrow();
  });
});
