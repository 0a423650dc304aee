import { randomUUID } from 'node:crypto';
import type { Fragment } from 'postgres';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type EventKind, eventKinds } from '../../src/events/event.ts';
import { createStreamHours } from '../../src/events/hours.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { eventually } from '../support/eventually.ts';
import { type EventsStage, newEvent, startEvents, stillClock } from './stage.ts';
import { createTimeMachine, retentionHours, type TimeMachine } from './time-machine.ts';

const everything = { orgId: null };

describe.each(engines)('retention on %s', (engine) => {
  const retentionMs = retentionHours(16, { heartbeat: 1, threats: 80 });
  let open: EngineDatabase;
  let time: TimeMachine;
  let stage: EventsStage;
  let agentUid: string;
  let beganHour: number;

  beforeAll(async () => {
    open = await openEngine(engine);
    time = createTimeMachine(open.database, retentionMs);
    stage = await startEvents(open.database, { clock: { ...stillClock, now: time.now }, retentionMs });
  });
  afterAll(async () => {
    await stage.stop(1_000);
    await open.close();
  });
  /** Each test begins with a day, and with agents of its own. */
  beforeEach(async () => {
    agentUid = randomUUID();
    await time.pass(24 - (time.hour % 24));
    beganHour = time.hour;
  });
  afterEach(() => expect(stage.errors).toEqual([]));

  const store = (...kinds: EventKind[]) =>
    stage.store(
      ...kinds.map((kind) =>
        newEvent({ agentUid, kind, messageId: `${kind} ${time.hour - beganHour}`, key: randomUUID() }),
      ),
    );
  const kept = async () =>
    (await stage.events.page(everything, { agentUid }, { first: 500 })).items.map(({ messageId }) => messageId);

  it('drops the events of a kind when the last of their partition is past its retention, and not before', async () => {
    await store('heartbeat', 'logs', 'threats');
    // Two hours, an eighth of 16, make a partition of logs: it ends when hour 2 begins.
    await time.pass(1);
    await store('heartbeat', 'logs');
    await time.pass(1);
    expect(await kept()).toEqual(['logs 0', 'threats 0', 'heartbeat 1', 'logs 1']);
    await time.pass(15);
    expect(await kept()).toEqual(['logs 0', 'threats 0', 'logs 1']);
    await time.pass(1);
    expect(await kept()).toEqual(['threats 0']);
    expect(await store('threats')).toEqual(['stored']);
  });

  it('counts from when a partition ended, though nobody was there for long', async () => {
    await store('logs');
    await time.pass(40);
    await time.pass(15);
    expect(await kept()).toEqual(['logs 0']);
    await time.pass(1);
    expect(await kept()).toEqual([]);
  });

  it('remembers the last event of each kind that it dropped, and only where there was one', async () => {
    const dropped = async () =>
      new Map(
        (
          await open.database.sql<{ kind: string; through_position: number }[]>`
            select kind, through_position from dropped_events`
        ).map((row) => [row.kind, row.through_position]),
      );
    const before = await dropped();
    const [head] = await open.database.sql<{ position: number }[]>`select position from event_stream`;
    const first = (head?.position ?? 0) + 1;
    await store('logs', 'heartbeat', 'logs', 'status', 'heartbeat');
    await time.pass(4);
    await time.pass(16);
    const after = await dropped();
    expect([after.get('heartbeat'), after.get('logs'), after.get('status')]).toEqual([first + 4, first + 2, first + 3]);
    expect(after.get('tests')).toBe(before.get('tests'));
  });

  it('keeps few partitions of each kind, whatever its retention', async () => {
    for (let step = 0; step < 20; step++) await time.pass(step < 10 ? 9 : 1);
    for (const kind of ['heartbeat', 'logs', 'threats'] as const) {
      const partitions = await time.partitions(kind);
      expect(partitions.length).toBeGreaterThanOrEqual(2);
      expect(partitions.length).toBeLessThanOrEqual(11);
    }
  });

  it('goes on where retention was changed', async () => {
    for (const hours of [100, 7, 1_000, 5]) {
      await time.retain(retentionHours(hours));
      time.hour += 9;
      await time.retain(retentionHours(hours));
      expect(await store('logs')).toEqual(['stored']);
    }
    await time.pass(126);
    await time.pass(16);
    expect(await kept()).toEqual([]);
    expect((await time.partitions('logs')).length).toBeLessThanOrEqual(2);
  });

  it('lets a clock that went back change nothing', async () => {
    await time.pass(10);
    await store('logs');
    await time.pass(-8);
    expect(await store('heartbeat')).toEqual(['stored']);
    await time.pass(8);
    expect(await kept()).toEqual(['logs 10', 'heartbeat 2']);
  });

  it('is done by several gateways at once without getting in each other’s way', async () => {
    for (let round = 0; round < 4; round++) {
      await store('logs', 'heartbeat');
      time.hour += 16;
      await Promise.all([1, 2, 3].map(() => time.retain()));
    }
    expect(await kept()).toEqual(['logs 48', 'heartbeat 48']);
  });

  it('knows an event that comes again for a day at least, whatever became of the event itself', async () => {
    const event = newEvent({ agentUid, kind: 'heartbeat', messageId: 'm1' });
    const other = newEvent({ agentUid, kind: 'heartbeat', messageId: 'm1', payload: 'something else' });
    await time.pass(23);
    expect(await stage.store(event)).toEqual(['stored']);
    await time.pass(1);
    expect(await stage.store(event, other)).toEqual(['duplicate', 'conflict']);
    await time.pass(23);
    expect(await stage.store(event, other)).toEqual(['duplicate', 'conflict']);
    expect(await kept()).toEqual([]);
    await time.pass(1);
    expect(await stage.store(event)).toEqual(['stored']);
    const [row] = await open.database.sql<{ count: number }[]>`
      select count(*) from pg_inherits where inhparent = 'recent_event_ids'::regclass`;
    expect(row?.count).toBeLessThanOrEqual(2);
  });

  it('leaves out what another version stored, tells it once, and gives the rest', async () => {
    const { sql } = open.database;
    await sql.unsafe(
      `create table events_dreams partition of events for values in ('dreams') partition by range (hour)`,
    );
    await time.pass(1);
    const asAnotherVersion = () =>
      sql`update events set kind = 'dreams' where kind = 'logs' and agent_uid = ${agentUid}`;
    await store('logs', 'status', 'threats', 'threats');
    await asAnotherVersion();
    await sql`update events set severity = 6 where kind = 'status' and agent_uid = ${agentUid}`;
    expect(await kept()).toEqual(['threats 1', 'threats 1']);
    const page = await stage.events.page(everything, { agentUid }, { first: 1 });
    expect([page.items.length, page.hasNextPage]).toEqual([1, true]);

    const ending = new AbortController();
    const stream = stage.events.subscribe(everything, { agentUid }, null, ending.signal)[Symbol.asyncIterator]();
    const first = stream.next();
    await eventually(() => stage.subscribers === 1);
    // What another gateway stored is read from the store.
    const other = await startEvents(await open.another(), { clock: { ...stillClock, now: time.now }, retentionMs });
    await other.store(newEvent({ agentUid }), newEvent({ agentUid }), newEvent({ agentUid, kind: 'threats' }));
    await other.stop(1_000);
    await asAnotherVersion();
    const [head] = await sql<{ position: number }[]>`select position from event_stream`;
    stage.bus.publish('stored', { position: head?.position ?? 0 });
    expect((await first).value).toMatchObject({ kind: 'threats' });
    ending.abort();
    expect(stage.errors.splice(0)).toEqual([expect.stringContaining('kind dreams, severity 0')]);
    // Partitions are made for a kind that this version does not know, and none of them is dropped.
    await time.pass(100);
    await time.pass(100);
    expect(await sql`select 1 from events where kind = 'dreams'`).toHaveLength(3);
  });

  it('takes nothing before its time although the clock of a gateway runs ahead', async () => {
    time.hour = 1_000 * 24;
    await time.retain();
    await store('logs');
    // Now it is ten years ahead of the database.
    time.hour += 3_650 * 24;
    await time.retain();
    expect(await kept()).toHaveLength(1);
    const [row] = await open.database.sql<{ behind: boolean }[]>`
      select hour <= extract(epoch from now()) / 3600 as behind from event_stream`;
    expect(row?.behind).toBe(true);
  });
});

describe.runIf(engines.includes('postgres'))('retention beside others', () => {
  const agentUid = randomUUID();
  const retentionMs = retentionHours(8);
  let open: EngineDatabase;
  let time: TimeMachine;
  let stage: EventsStage;

  beforeEach(async () => {
    open = await openEngine('postgres');
    time = createTimeMachine(open.database, retentionMs);
    stage = await startEvents(open.database, { clock: { ...stillClock, now: time.now }, retentionMs });
  });
  afterEach(async () => {
    await stage.stop(1_000);
    await open.close();
  });

  it('goes on storing where no partition can be made, and makes it later', async () => {
    const { sql } = await open.another();
    await sql.begin(async (tx) => {
      await tx`lock table only events_logs in share update exclusive mode`;
      await expect(time.pass(5)).rejects.toMatchObject({ code: '55P03' });
      expect(await stage.store(newEvent({ agentUid }))).toEqual(['stored']);
    });
    await time.retain();
    expect(await stage.store(newEvent({ agentUid }))).toEqual(['stored']);
    expect(await time.partitions('logs')).toHaveLength(2);
  });

  it('does not wait for whoever reads what is to be dropped, and drops it later', async () => {
    await stage.store(newEvent({ agentUid }));
    await time.pass(8);
    const { sql } = await open.another();
    await sql.begin(async (tx) => {
      expect(await tx`select position from events`).toHaveLength(1);
      await expect(time.pass(8)).rejects.toMatchObject({ code: '55P03' });
      expect(await stage.store(newEvent({ agentUid }))).toEqual(['stored']);
    });
    await time.retain();
    expect(await open.database.sql`select position from events`).toHaveLength(1);
  });

  it('has a catch-up near the head plan with the newest partitions alone', async () => {
    for (let hour = 0; hour < 8; hour++) {
      await stage.store(newEvent({ agentUid }), newEvent({ agentUid, kind: 'threats' }));
      await time.pass(1);
    }
    await stage.store(newEvent({ agentUid }));
    const hours = createStreamHours(open.database);
    await hours.learn();
    const { from, until } = hours.holding(16, null);
    const { sql } = open.database;
    const planned = async (query: Fragment) => {
      const plan = await sql`explain select * from events where position > 16 ${query} order by position limit 500`;
      return new Set(
        plan
          .map((row) => String(row['QUERY PLAN']))
          .join()
          .match(/ on events_\w+_\d+_\d+/g),
      ).size;
    };
    expect(await planned(sql`and hour >= ${from} and hour < ${until}`)).toBe(eventKinds.length);
    expect(await planned(sql``)).toBe(eventKinds.length * 9);
  });
});
