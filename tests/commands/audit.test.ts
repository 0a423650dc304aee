import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditing } from '../../src/audit/auditing.ts';
import { createSealer } from '../../src/audit/sealer.ts';
import { systemClock } from '../../src/clock.ts';
import { type Database, openDatabase } from '../../src/db/database.ts';
import { changerOf } from '../support/changer.ts';
import { createTestDatabase, hasPostgres, type TestDatabase } from '../support/databases.ts';
import { run, scratchFolder } from './command-line.ts';

describe.runIf(hasPostgres())('audit', { timeout: 120_000 }, () => {
  let testDatabase: TestDatabase;
  let database: Database;
  let env: Record<string, string>;
  beforeAll(async () => {
    testDatabase = await createTestDatabase();
    const databaseUrl = testDatabase.databaseUrl ?? '';
    database = await openDatabase({ databaseUrl, dataDir: 'memory' });
    env = { DATABASE_URL: databaseUrl, DATA_DIR: join(scratchFolder(), 'data') };
    await write('acme', 'one', 'two', 'three');
    await write(null, 'four');
  });
  afterAll(async () => {
    await database.close();
    await testDatabase.drop();
  });

  async function write(orgId: string | null, ...subjects: string[]): Promise<void> {
    const { sql } = database;
    for (const subject of subjects)
      await sql`${auditing(
        sql,
        changerOf(null),
        'agent.note',
        sql`select ${orgId}::text, ${subject}::text, null, '{}'::json`,
      )}`;
    await createSealer({ database, clock: systemClock, retentionMs: null, logError: () => {} }).seal();
  }

  async function audit(...args: string[]) {
    const command = run(['audit', ...args], env);
    const exitCode = await command.ended;
    return { exitCode, stdout: command.stdout, stderr: command.stderr };
  }

  it('says of every chain how it stands, and names the first broken link of one that is broken', async () => {
    const heads = await audit('head');
    expect(heads).toMatchObject({ exitCode: 0, stderr: '' });
    expect(heads.stdout).toMatch(/^- 1 [0-9a-f]{64}\nacme 3 [0-9a-f]{64}\n$/);
    const file = join(scratchFolder(), 'heads');
    writeFileSync(file, heads.stdout);
    await write('acme', 'five');
    const good = await audit('verify', '--heads', file);
    expect(good).toMatchObject({ exitCode: 0, stderr: '' });
    expect(good.stdout).toMatch(
      /^ok {6}-: 1 entries, head 1 [0-9a-f]{64}\nok {6}acme: 4 entries, head 4 [0-9a-f]{64}\n$/,
    );

    const meddler = postgres(testDatabase.databaseUrl ?? '', { max: 1, onnotice: () => {} });
    await meddler`alter table audit_entries disable trigger user`;
    await meddler`update audit_entries set subject_id = 'other' where org_id = 'acme' and number = 2`;
    await meddler.end();
    const broken = await audit('verify');
    expect(broken.exitCode).toBe(1);
    expect(broken.stdout).toMatch(
      /^ok {6}-: .*\nBROKEN {2}acme: number 2 \(entry \d+\) does not follow from the one before/,
    );
  });

  it('refuses what it does not understand', async () => {
    const file = join(scratchFolder(), 'heads');
    writeFileSync(file, 'acme 3 nonsense\n');
    for (const args of [[], ['nonsense'], ['head', '--heads', file], ['verify', '--heads', file]])
      expect(await audit(...args)).toMatchObject({ exitCode: 2, stdout: '' });
  });
});
