import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Actor } from '../../src/audit/actor.ts';
import { auditing, detailsOf, entryColumns } from '../../src/audit/auditing.ts';
import { chainStart, nextPlace, type SealedContent } from '../../src/audit/seal.ts';
import { createSealer } from '../../src/audit/sealer.ts';
import { type ChainHead, type ChainReport, readHeads, verifyChains } from '../../src/audit/verify.ts';
import { systemClock } from '../../src/clock.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';

const by: Actor = {
  ...{ kind: 'api-key', id: 'key-1', label: 'console' },
  origin: { clientAddress: '192.0.2.1', requestId: 'request-1', traceparent: null },
};

describe.each(engines)('the chain of an organisation, %s', (engine) => {
  let open: EngineDatabase;

  beforeAll(async () => {
    open = await openEngine(engine);
  });
  afterAll(() => open.close());

  const sql = () => open.database.sql;
  const newOrg = () => `org-${randomUUID()}`;

  async function write(orgId: string | null, ...subjects: string[]): Promise<void> {
    for (const subject of subjects)
      await sql()`${auditing(
        sql(),
        by,
        'agent.note',
        sql()`select ${orgId}::text, ${subject}::text, 'host', ${detailsOf(sql(), { note: `of ${subject} – “ü”` })}`,
      )}`;
  }

  async function seal(retentionMs: number | null = null): Promise<void> {
    const errors: unknown[] = [];
    const sealer = createSealer({
      ...{ database: open.database, clock: systemClock, retentionMs },
      logError: (error) => errors.push(error),
    });
    await sealer.seal();
    await sealer.trim();
    expect(errors).toEqual([]);
  }

  async function reportOf(orgId: string | null, noted: readonly ChainHead[] = []): Promise<ChainReport | undefined> {
    return (await verifyChains(open.database, noted)).find((report) => report.orgId === orgId);
  }

  /** A chain of five. */
  async function chainOfFive(): Promise<string> {
    const orgId = newOrg();
    await write(orgId, 'a', 'b', 'c', 'd', 'e');
    await seal();
    return orgId;
  }

  /** What somebody does who may do anything to the database. */
  async function tamper(change: () => Promise<unknown>): Promise<void> {
    for (const table of ['audit_entries', 'audit_pending'])
      await sql()`alter table ${sql()(table)} disable trigger user`;
    await change();
    for (const table of ['audit_entries', 'audit_pending'])
      await sql()`alter table ${sql()(table)} enable trigger user`;
  }

  /** As if they had never been sealed. */
  async function unseal(orgId: string): Promise<void> {
    await sql()`
      with unsealed as (delete from audit_entries where org_id = ${orgId} returning *)
      insert into audit_pending select ${entryColumns(sql())} from unsealed order by id`;
    await sql()`delete from audit_chains where org_id = ${orgId}`;
  }

  it('holds every entry, in the order in which they were written', async () => {
    const orgId = await chainOfFive();
    const rows = await sql()`
      select number, subject_id, actor_id, address, request_id, outcome from audit_entries where org_id = ${orgId} order by id`;
    expect(rows.map((row) => [row.number, row.subject_id])).toEqual([
      [1, 'a'],
      [2, 'b'],
      [3, 'c'],
      [4, 'd'],
      [5, 'e'],
    ]);
    expect(rows[0]).toMatchObject({ actor_id: 'key-1', address: '192.0.2.1', request_id: 'request-1', outcome: 'OK' });
    expect(await reportOf(orgId)).toMatchObject({ verified: 5, unsealed: 0, fault: null, head: { number: 5 } });
  });

  it('is each its own, and so is that of no organisation', async () => {
    const [one, other] = [newOrg(), newOrg()];
    await write(one, 'a');
    await write(null, 'x');
    await write(other, 'b');
    await write(one, 'c');
    await seal();
    expect(await reportOf(one)).toMatchObject({ verified: 2, fault: null });
    expect(await reportOf(other)).toMatchObject({ verified: 1, fault: null });
    expect((await reportOf(null))?.fault).toBeNull();
  });

  it('goes on where the one who sealed before left off', async () => {
    const orgId = await chainOfFive();
    await write(orgId, 'f');
    expect(await reportOf(orgId)).toMatchObject({ verified: 5, unsealed: 1, fault: null });
    await seal();
    expect(await reportOf(orgId)).toMatchObject({ verified: 6, unsealed: 0, fault: null });
  });

  it.each([
    [
      'its actor',
      (orgId: string) => sql()`update audit_entries set actor_id = 'nobody' where org_id = ${orgId} and number = 3`,
    ],
    [
      'its time',
      (orgId: string) =>
        sql()`update audit_entries set at = at + interval '1 microsecond' where org_id = ${orgId} and number = 3`,
    ],
    [
      'its outcome',
      (orgId: string) => sql()`update audit_entries set outcome = 'NO' where org_id = ${orgId} and number = 3`,
    ],
    [
      'a space in its details',
      (orgId: string) =>
        sql()`update audit_entries set details = (details::text || ' ')::json where org_id = ${orgId} and number = 3`,
    ],
    [
      'its hash',
      (orgId: string) =>
        sql()`update audit_entries set hash = ${'0'.repeat(64)} where org_id = ${orgId} and number = 3`,
    ],
  ])('names an entry of which somebody changed %s', async (_what, change) => {
    const orgId = await chainOfFive();
    await tamper(() => change(orgId));
    const report = await reportOf(orgId);
    expect(report).toMatchObject({ verified: 2 });
    expect(report?.fault).toMatch(/^number 3 \(entry \d+\) does not follow/);
  });

  it('names an entry that is missing', async () => {
    const orgId = await chainOfFive();
    await tamper(() => sql()`delete from audit_entries where org_id = ${orgId} and number in (2, 3)`);
    expect(await reportOf(orgId)).toMatchObject({ verified: 1, fault: 'numbers 2 to 3 are missing' });
  });

  it('names an entry that was put in, the others moved behind it', async () => {
    const orgId = await chainOfFive();
    await tamper(async () => {
      for (const number of [5, 4, 3])
        await sql()`update audit_entries set number = ${number + 1} where org_id = ${orgId} and number = ${number}`;
      await sql()`
        insert into audit_entries (org_id, actor_kind, actor_id, actor_label, action, subject_type, subject_id, details, number, hash)
        select org_id, actor_kind, actor_id, actor_label, action, subject_type, 'forged', details, 3, ${'a'.repeat(64)}
        from audit_entries where org_id = ${orgId} and number = 2`;
    });
    expect((await reportOf(orgId))?.fault).toMatch(/^number 3 \(entry \d+\) does not follow/);
  });

  it('names the first of two entries that changed places', async () => {
    const orgId = await chainOfFive();
    await tamper(async () => {
      await sql()`update audit_entries set number = 0 where org_id = ${orgId} and number = 2`;
      await sql()`update audit_entries set number = 2 where org_id = ${orgId} and number = 3`;
      await sql()`update audit_entries set number = 3 where org_id = ${orgId} and number = 0`;
    });
    expect((await reportOf(orgId))?.fault).toMatch(/^number 2 \(entry \d+\) does not follow/);
  });

  it('misses entries at its end, as long as its head is there', async () => {
    const orgId = await chainOfFive();
    await tamper(() => sql()`delete from audit_entries where org_id = ${orgId} and number = 5`);
    expect((await reportOf(orgId))?.fault).toBe('number 5 is missing');
  });

  it('misses what was cut off together with the head only by a head that was noted elsewhere', async () => {
    const orgId = await chainOfFive();
    const noted = (await readHeads(open.database)).filter((head) => head.orgId === orgId);
    await tamper(() => sql()`delete from audit_entries where org_id = ${orgId} and number > 3`);
    await sql()`
      update audit_chains set number = 3, hash = (select hash from audit_entries where org_id = ${orgId} and number = 3)
      where org_id = ${orgId}`;
    expect((await reportOf(orgId))?.fault).toBeNull();
    expect((await reportOf(orgId, noted))?.fault).toBe('numbers 4 to 5 are missing');
  });

  it('tells a chain that was written anew only by a head that was noted elsewhere', async () => {
    const orgId = await chainOfFive();
    const noted = (await readHeads(open.database)).filter((head) => head.orgId === orgId);
    await tamper(async () => {
      await unseal(orgId);
      await sql()`update audit_pending set actor_id = 'nobody' where org_id = ${orgId}`;
    });
    await seal();
    expect((await reportOf(orgId))?.fault).toBeNull();
    expect((await reportOf(orgId, noted))?.fault).toMatch(/^number 5 is not the one that was noted/);
  });

  it('is missed as a whole by a head that was noted elsewhere', async () => {
    const orgId = await chainOfFive();
    const noted = (await readHeads(open.database)).filter((head) => head.orgId === orgId);
    await tamper(() => sql()`delete from audit_entries where org_id = ${orgId}`);
    await sql()`delete from audit_chains where org_id = ${orgId}`;
    expect((await reportOf(orgId, noted))?.fault).toBe('the whole chain is missing');
  });

  it.each([
    [
      'changed',
      (table: string, orgId: string) => sql()`
      update ${sql()(table)} set actor_id = 'nobody' where org_id = ${orgId}`,
    ],
    ['taken away', (table: string, orgId: string) => sql()`delete from ${sql()(table)} where org_id = ${orgId}`],
    ['taken away together', (table: string) => sql()`truncate ${sql()(table)}`],
  ])('lets no entry be %s, sealed or not', async (_what, change) => {
    const orgId = await chainOfFive();
    await write(orgId, 'unsealed');
    for (const table of ['audit_entries', 'audit_pending'])
      await expect(change(table, orgId)).rejects.toThrow(`${table} is append-only`);
  });

  it('takes over an entry as it was written, and in no other way', async () => {
    const orgId = await chainOfFive();
    await write(orgId, 'unsealed');
    await expect(sql()`
      with taken as (delete from audit_pending where org_id = ${orgId} returning *)
      insert into audit_entries
      select id, org_id, at, actor_kind, 'nobody', actor_label, address, request_id, action, subject_type, subject_id, subject_name,
        outcome, details, 6, ${'a'.repeat(64)} from taken`).rejects.toThrow('audit_pending is append-only');
  });

  it('is computed in the database as docs/AUDIT.md says, whatever people write', async () => {
    const orgId = newOrg();
    const anyText = fc.string({ unit: 'grapheme', maxLength: 12 }).map((text) => text.replaceAll('\u0000', ''));
    const odd = ['"\\/', '\b\f\n\r\t\u0001\u001f\u007f', '\u2028\u2029', '\ud83d\ude00', 'null', ''];
    await write(orgId, ...odd, ...fc.sample(anyText, 100));
    await seal();
    expect(await reportOf(orgId)).toMatchObject({ verified: odd.length + 100, fault: null });
  });

  it('seals any number of entries, and leaves no room behind where they waited', async () => {
    const orgId = newOrg();
    const sealMany = async () => {
      await sql()`${auditing(
        sql(),
        by,
        'agent.note',
        sql()`select ${orgId}::text, 'a', null, '{}'::json from generate_series(1, 10000)`,
      )}`;
      await sealer.seal();
      const [size] = await sql()<{ bytes: number }[]>`select pg_relation_size('audit_pending') as bytes`;
      return size?.bytes ?? 0;
    };
    const sealer = createSealer({
      ...{ database: open.database, clock: systemClock, retentionMs: null },
      logError: (error) => {
        throw error;
      },
    });
    const bytes = await sealMany();
    expect(await sealMany()).toBeLessThan(bytes * 1.5);
    const [sealed] = await sql()`select count(*), max(number) from audit_entries where org_id = ${orgId}`;
    expect(sealed).toEqual({ count: 20_000, max: 20_000 });
  });

  it('keeps its entries for ever unless told otherwise', async () => {
    const orgId = await chainOfFive();
    await tamper(() => sql()`update audit_entries set at = now() - interval '9 years' where org_id = ${orgId}`);
    await seal();
    expect(await sql()`select from audit_entries where org_id = ${orgId}`).toHaveLength(5);
  });

  it('loses its oldest entries to retention, as far as all are too old, and still verifies', async () => {
    const orgId = newOrg();
    const old = (age: string, subject: string) =>
      tamper(async () => {
        await write(orgId, subject);
        await sql()`
          update audit_pending set at = now() - ${age}::interval where org_id = ${orgId} and subject_id = ${subject}`;
      });
    await old('3 days', 'a');
    await old('2 days', 'b');
    await old('1 hour', 'young');
    await old('4 days', 'late');
    await seal(86_400_000);
    await seal();
    const left =
      await sql()`select action, number, subject_id from audit_entries where org_id = ${orgId} order by number`;
    expect(left.map((row) => [row.action, row.number, row.subject_id])).toEqual([
      ['agent.note', 3, 'young'],
      ['agent.note', 4, 'late'],
      ['audit.trim', 5, '2'],
    ]);
    const report = await reportOf(orgId);
    expect(report).toMatchObject({ anchor: { number: 2 }, verified: 3, fault: null });
    await tamper(() => sql()`delete from audit_entries where org_id = ${orgId} and number = 3`);
    expect((await reportOf(orgId))?.fault).toBe('number 3 is missing');
  });
});

describe.runIf(engines.length > 1)('entries that commit late', () => {
  let open: EngineDatabase;

  beforeAll(async () => {
    open = await openEngine('postgres');
  });
  afterAll(() => open.close());

  it('come into the chain after those that committed before, whatever their id, and so do two sealers at once', async () => {
    const { database } = open;
    const { sql } = database;
    const orgId = `org-${randomUUID()}`;
    const entry = (subject: string) =>
      auditing(sql, by, 'agent.note', sql`select ${orgId}::text, ${subject}::text, null, '{}'::json`);
    const sealers = [1, 2].map(() =>
      createSealer({
        ...{ database, clock: systemClock, retentionMs: null },
        logError: (error) => {
          throw error;
        },
      }),
    );
    const sealAll = () => Promise.all(sealers.map((sealer) => sealer.seal()));
    await sql.begin(async (tx) => {
      await tx`${entry('late')}`;
      await Promise.all(Array.from({ length: 50 }, (_, index) => sql`${entry(`early-${index}`)}`));
      await sealAll();
    });
    await sealAll();
    await sealers[0]?.seal();
    const [last] =
      await sql`select number, subject_id from audit_entries where org_id = ${orgId} order by number desc limit 1`;
    expect(last).toMatchObject({ number: 51, subject_id: 'late' });
    const [report] = await verifyChains(database, []);
    expect(report).toMatchObject({ orgId, verified: 51, fault: null });
  });
});

describe('the hash of an entry', () => {
  const content: fc.Arbitrary<SealedContent> = fc.record({
    id: fc.nat(),
    ...{ chain: fc.string(), at: fc.string(), actorKind: fc.string(), actorId: fc.string(), actorLabel: fc.string() },
    ...{ address: fc.option(fc.string()), requestId: fc.option(fc.string()), action: fc.string() },
    ...{ subjectType: fc.string(), subjectId: fc.string(), subjectName: fc.option(fc.string()) },
    ...{ outcome: fc.string(), details: fc.string() },
  });

  it('is another one for any other content, and for any other place', () => {
    fc.assert(
      fc.property(content, content, (one, other) => {
        const place = nextPlace(chainStart, one);
        const isSame = JSON.stringify(one) === JSON.stringify(other);
        expect(nextPlace(chainStart, other).hash === place.hash).toBe(isSame);
        expect(nextPlace(place, one).hash).not.toBe(place.hash);
      }),
      { numRuns: 200 },
    );
  });

  it('is what docs/AUDIT.md says', () => {
    const place = nextPlace(chainStart, {
      ...{ id: 17, chain: 'default-org', at: '2026-11-23T12:10:34.000001Z' },
      ...{ actorKind: 'api-key', actorId: 'key-1', actorLabel: 'console', address: '192.0.2.1', requestId: null },
      ...{ action: 'agent.note', subjectType: 'agent', subjectId: 'a', subjectName: 'host-1', outcome: 'OK' },
      details: '{"note":"seen"}',
    });
    expect(place).toEqual({ number: 1, hash: 'bde2bb6e3bd68d146bf19610b3beb4dfa124514a8bd6d934eb798bc714112426' });
  });
});
