import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createAppending } from '../../src/events/appending.ts';
import { createEventWriter } from '../../src/events/event-writer.ts';
import type { IngestOutcome } from '../../src/events/ingest.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { eventually } from '../support/eventually.ts';
import { type EventsStage, newEvent, startEvents, stillClock } from './stage.ts';

const hasPostgres = engines.includes('postgres');

describe.runIf(hasPostgres)('storing events while the database fails', () => {
  let open: EngineDatabase;
  let stage: EventsStage;
  const agentUid = randomUUID();

  beforeAll(async () => {
    open = await openEngine('postgres');
  });
  afterAll(() => open.close());
  beforeEach(async () => {
    stage = await startEvents(await open.another());
  });
  afterEach(() => stage.stop(2_000));

  const count = async (uid: string) => (await open.database.sql`select 1 from events where agent_uid = ${uid}`).length;

  it('loses nothing and repeats nothing while its connections are cut again and again', async () => {
    const ids = Array.from({ length: 400 }, (_, index) => `m${index}`);
    const settled: Promise<IngestOutcome[]>[] = [];
    for (const [index, messageId] of ids.entries()) {
      settled.push(stage.store(newEvent({ agentUid, messageId })));
      if (index % 40 === 0)
        await open.database.sql`
          select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid() and query like '%recent_event_ids%'`;
    }
    const outcomes = (await Promise.all(settled)).flat();
    // A commit whose answer was lost is found again as one that was there before.
    expect(outcomes.filter((outcome) => outcome !== 'stored' && outcome !== 'duplicate')).toEqual([]);
    const { items } = await stage.events.page({ orgId: null }, { agentUid }, { first: 500 });
    expect(items.map(({ messageId }) => messageId)).toEqual(ids);
    const positions = items.map(({ position }) => position);
    expect(positions).toEqual(positions.map((_, index) => (positions[0] ?? 0) + index));
    expect(stage.errors.length).toBeGreaterThan(0);
  });

  it('waits while the table is locked, with more coming in, and stores everything in order afterwards', async () => {
    const uid = randomUUID();
    const settled: Promise<IngestOutcome[]>[] = [];
    await open.database.sql.begin(async (tx) => {
      await tx`lock table events in access exclusive mode`;
      for (let index = 0; index < 50; index++)
        settled.push(stage.store(newEvent({ agentUid: uid, messageId: `m${index}` })));
      await eventually(async () => {
        const waiting = await open.database.sql`
          select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
        return waiting.length > 0;
      });
      expect(stage.ingest.waiting).toBe(50);
    });
    expect(new Set((await Promise.all(settled)).flat())).toEqual(new Set(['stored']));
    expect(await count(uid)).toBe(50);
  });

  it('asks again while the table is missing', async () => {
    const uid = randomUUID();
    await open.database.sql`alter table events rename to events_away`;
    const settled = stage.store(newEvent({ agentUid: uid }), newEvent({ agentUid: uid }));
    await eventually(() => stage.errors.length >= 2);
    expect(stage.ingest.waiting).toBe(2);
    await open.database.sql`alter table events_away rename to events`;
    expect(await settled).toEqual(['stored', 'stored']);
  });

  it('stores an event once when the answer to its commit is lost, and shows it all the same', async () => {
    const { database, proxy } = await open.throughProxy();
    const cut = await startEvents(database);
    const uid = randomUUID();
    const ending = new AbortController();
    const stream = cut.events
      .subscribe({ orgId: null }, { agentUid: uid }, null, ending.signal)
      [Symbol.asyncIterator]();
    const shown = stream.next();
    await eventually(() => cut.subscribers === 1);
    const lost = proxy.cutAnswer('SELECT 1');
    const [outcomes] = await Promise.all([cut.store(newEvent({ agentUid: uid, messageId: 'm1' })), lost]);
    // It was there before, as far as anyone can tell.
    expect(outcomes).toEqual(['duplicate']);
    expect((await shown).value).toMatchObject({ messageId: 'm1' });
    expect(await count(uid)).toBe(1);
    ending.abort();
    await cut.stop(2_000);
  });

  it('gives up at once when it is stopped between two attempts', async () => {
    const { database } = await open.throughProxy();
    await database.close();
    const errors: unknown[] = [];
    const writer = createEventWriter({
      appending: createAppending(database),
      bus: stage.bus,
      ...{ clock: stillClock, wall: stillClock },
      onStored: () => {},
      logError: (error) => errors.push(error),
    });
    const written = writer.write([newEvent({ agentUid })]);
    await eventually(() => errors.length === 1);
    writer.stop();
    expect(await written).toEqual([]);
    expect(await writer.write([newEvent({ agentUid })])).toEqual([]);
  });

  it('stops in time although the database fails, leaving what is not written unsettled', async () => {
    let isSettled = false;
    await open.database.sql`alter table events rename to events_away`;
    try {
      stage.ingest.push(newEvent({ agentUid }), () => {
        isSettled = true;
      });
      await eventually(() => stage.errors.length > 0);
      const startedMs = performance.now();
      await stage.stop(2_000);
      expect(performance.now() - startedMs).toBeLessThan(1_000);
    } finally {
      await open.database.sql`alter table events_away rename to events`;
    }
    expect(isSettled).toBe(false);
  });
});
