import postgres from 'postgres';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type BoundSessions, createBoundSessions } from '../../src/db/bound-sessions.ts';
import { createTestDatabase, hasPostgres, type TestDatabase } from '../support/databases.ts';

const lock = 7;
const patience = { timeout: 10_000 };

describe.skipIf(!hasPostgres())('sessions that are bound to an organisation', () => {
  let testDatabase: TestDatabase;
  let sessions: BoundSessions;
  let other: postgres.Sql;
  /** What has gone out, and what was answered, each in its order. */
  let sent: string[];
  let answered: string[];
  const clients: postgres.Sql[] = [];

  beforeEach(async () => {
    testDatabase = await createTestDatabase();
    const url = testDatabase.databaseUrl ?? '';
    sent = [];
    answered = [];
    other = postgres(url, { max: 1 });
    sessions = createBoundSessions((onClosed) => {
      const debug = (_connection: number, text: string) => {
        if (!text.includes('pg_catalog')) sent.push(text.includes('set_config') ? 'bind' : text);
      };
      const client = postgres(url, { max: 1, onclose: onClosed, debug });
      clients.push(client);
      return client;
    }, 2);
  });
  afterEach(async () => {
    await other.end();
    await sessions.close(1);
    clients.length = 0;
    await testDatabase.drop();
  });

  const ask = async (orgId: string, name: string) => {
    const [row] = await sessions.ask(orgId, (sql) =>
      sql.unsafe(`select current_setting('aegis.org_id') as org -- ${name}`),
    );
    answered.push(name);
    return row?.org;
  };
  // Without parameters: the driver sends nothing behind a statement whose parameters it has yet to ask about.
  const askForLock = (orgId: string) =>
    sessions.ask(orgId, (sql) =>
      sql.unsafe(`select pg_advisory_lock_shared(${lock}), pg_advisory_unlock_shared(${lock})`),
    );
  const names = () => sent.filter((text) => text.includes('--')).map((text) => text.split('-- ')[1]);

  /** Holds up whoever asks for the lock. */
  const holdUp = () => other`select pg_advisory_lock(${lock})`;
  const holdUpBoth = async () => {
    await Promise.all([ask('acme', 'first'), ask('acme', 'first')]);
    sent.length = 0;
    answered.length = 0;
    await holdUp();
    return [askForLock('acme'), askForLock('acme')];
  };
  const goOn = () => other`select pg_advisory_unlock(${lock})`;

  it('take the next statement of theirs before the last one is answered, where none is idle', async () => {
    const held = await holdUpBoth();
    const asked = [ask('acme', 'one'), ask('acme', 'two'), ask('acme', 'three')];
    await expect.poll(names, patience).toEqual(['one', 'two', 'three']);
    expect(clients).toHaveLength(2);
    expect(answered).toEqual([]);
    await goOn();
    expect(await Promise.all(asked)).toEqual(['acme', 'acme', 'acme']);
    await Promise.all(held);
    expect(sent).not.toContain('bind');
  });

  it('let nobody wait for ever behind an organisation that always asks', async () => {
    const held = await holdUpBoth();
    const asked = [ask('acme', 'one'), ask('globex', 'two'), ask('acme', 'three'), ask('acme', 'four')];
    await expect.poll(names, patience).toEqual(['one']);
    await goOn();
    expect(await Promise.all(asked)).toEqual(['acme', 'globex', 'acme', 'acme']);
    await Promise.all(held);
    expect(names().slice(0, 2)).toEqual(['one', 'two']);
  });

  it('are lent to one alone for a transaction', async () => {
    await ask('acme', 'first');
    await holdUp();
    const held = [askForLock('acme')];
    const lent = sessions.lend('acme', (sql) =>
      sql.begin(async (tx) => {
        await tx`select pg_advisory_xact_lock(${lock})`;
        answered.push('transaction');
      }),
    );
    await expect.poll(() => sent.filter((text) => text.includes('xact')).length, patience).toBe(1);
    const asked = [ask('acme', 'one'), ask('acme', 'two')];
    await expect.poll(names, patience).toEqual(['first', 'one', 'two']);
    await goOn();
    await Promise.all([...held, lent, ...asked]);
    expect(answered).toHaveLength(4);
  });

  it('are bound anew after a statement has failed, to the same organisation as well', async () => {
    await Promise.all([ask('acme', 'one'), ask('acme', 'two')]);
    const failing = sessions.ask('acme', (sql) => sql`select 1 / 0`);
    await expect(failing).rejects.toThrow('division by zero');
    expect(await Promise.all([ask('acme', 'three'), ask('acme', 'four'), ask('acme', 'five')])).toEqual([
      'acme',
      'acme',
      'acme',
    ]);
    expect(sent.filter((text) => text === 'bind')).toHaveLength(3);
  });

  it('stay bound to one organisation while statements of it are under way', async () => {
    const orgs = Array.from({ length: 300 }, (_, index) => `org-${index % 7 === 0 ? index : index % 3}`);
    expect(await Promise.all(orgs.map((org, index) => ask(org, String(index))))).toEqual(orgs);
  });
});
