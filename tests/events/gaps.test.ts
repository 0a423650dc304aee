import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { eventCursor, positionIn } from '../../src/events/cursor.ts';
import type { EventFilter, EventKind, StoredEvent, StreamGap } from '../../src/events/event.ts';
import { createGapTeller } from '../../src/events/gaps.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { eventually } from '../support/eventually.ts';
import { type EventsStage, newEvent, startEvents, stillClock, take } from './stage.ts';
import { createTimeMachine, retentionHours, type TimeMachine } from './time-machine.ts';

const everything = { orgId: null };

describe('a gap', () => {
  /** What a store holds: the kind at each position from 1 on, and the last that retention took of each kind. */
  const store = fc.record({
    kinds: fc.array(fc.constantFrom<EventKind>('logs', 'threats', 'heartbeat'), { minLength: 1, maxLength: 40 }),
    dropped: fc.dictionary(fc.constantFrom('logs', 'threats', 'heartbeat'), fc.nat(45)),
    wanted: fc.option(fc.subarray<EventKind>(['logs', 'threats', 'heartbeat'], { minLength: 1 }), { nil: undefined }),
    after: fc.nat(40),
    pageSize: fc.integer({ min: 1, max: 12 }),
    cutAfter: fc.nat(45),
  });
  type Store = typeof store extends fc.Arbitrary<infer Value> ? Value : never;

  const eventAt = (position: number, kind: EventKind): StoredEvent => ({
    ...{ position, kind, messageId: `m${position}`, agentUid: '', agentName: '', orgId: '', payload: null },
    ...{ occurredAt: new Date(0), receivedAt: new Date(0), trusted: true, sealed: false, severity: 'unknown' },
    replyTo: null,
  });

  /** By kind, the last event of it that retention took: an event that there was, so no other kind's has its position. */
  function droppedThrough({ kinds, dropped }: Store): ReadonlyMap<string, number> {
    const last = Object.entries(dropped).map(
      ([kind, position]) => [kind, kinds.slice(0, position).findLastIndex((each) => each === kind) + 1] as const,
    );
    return new Map(last.filter(([, position]) => position > 0));
  }

  /** What a reader is given from a cursor on, page after page. */
  function replay(given: Store, after: number): (StoredEvent | StreamGap)[] {
    const { kinds, wanted, pageSize } = given;
    const last = droppedThrough(given);
    const kept = kinds
      .map((kind, index) => eventAt(index + 1, kind))
      .filter(({ kind, position }) => (wanted?.includes(kind) ?? true) && position > (last.get(kind) ?? 0));
    const teller = createGapTeller(wanted);
    const items: (StoredEvent | StreamGap)[] = [];
    for (let seen = after; seen < kinds.length; ) {
      const page = kept.filter(({ position }) => position > seen).slice(0, pageSize);
      const through = page.length === pageSize ? (page.at(-1)?.position ?? 0) : kinds.length;
      items.push(...teller.tell({ after: seen, through, events: page, dropped: last }));
      seen = through;
    }
    return items;
  }
  const isEvent = (item: StoredEvent | StreamGap): item is StoredEvent => 'position' in item;
  const placeOf = (item: StoredEvent | StreamGap) => (isEvent(item) ? item.position : positionIn(item.to));

  it('is told wherever something wanted is gone, and nowhere else; what is left comes whole and in order', () => {
    fc.assert(
      fc.property(store, (given) => {
        const items = replay(given, given.after);
        const isLost = (kind: EventKind, position: number) =>
          position > given.after && position <= (given.dropped[kind] ?? 0) && (given.wanted?.includes(kind) ?? true);
        const gaps = items.filter((item): item is StreamGap => !isEvent(item));
        const lost = given.kinds.flatMap((kind, index) => (isLost(kind, index + 1) ? [index + 1] : []));
        for (const position of lost)
          expect(gaps.some(({ from, to }) => positionIn(from ?? '') < position && position <= positionIn(to))).toBe(
            true,
          );
        const bound = Math.max(
          0,
          ...[...droppedThrough(given)]
            .filter(([kind]) => given.wanted === undefined || given.wanted.some((wanted) => wanted === kind))
            .map(([, position]) => position),
        );
        expect(gaps).toHaveLength(bound > given.after ? 1 : 0);
        const places = items.map(placeOf);
        expect(places).toEqual([...places].sort((one, other) => one - other));
      }),
      { numRuns: 300 },
    );
  });

  it('loses a reader nothing that is cut off anywhere and goes on at its last cursor', () => {
    fc.assert(
      fc.property(store, (given) => {
        const whole = replay(given, given.after);
        const before = whole.slice(0, given.cutAfter);
        const last = before.at(-1);
        const resumed = replay(given, last ? placeOf(last) : given.after);
        const events = [...before, ...resumed].filter(isEvent).map(({ position }) => position);
        expect(events).toEqual(whole.filter(isEvent).map(({ position }) => position));
        // And nobody goes without the gap.
        expect([...before, ...resumed].some((item) => !isEvent(item))).toBe(whole.some((item) => !isEvent(item)));
      }),
      { numRuns: 300 },
    );
  });
});

describe.each(engines)('streams where retention was first, on %s', (engine) => {
  const retentionMs = retentionHours(8, { threats: 800 });
  let open: EngineDatabase;
  let time: TimeMachine;
  let stage: EventsStage;
  let agentUid: string;
  let begin: number;
  const ending: AbortController[] = [];

  beforeAll(async () => {
    open = await openEngine(engine);
    time = createTimeMachine(open.database, retentionMs);
    stage = await startEvents(open.database, { clock: { ...stillClock, now: time.now }, retentionMs });
  });
  afterAll(async () => {
    await stage.stop(1_000);
    await open.close();
  });
  beforeEach(async () => {
    agentUid = randomUUID();
    await time.pass(1);
    begin = await headPosition();
  });
  afterEach(() => {
    for (const controller of ending.splice(0)) controller.abort();
    expect(stage.errors).toEqual([]);
  });

  async function headPosition(): Promise<number> {
    const [row] = await open.database.sql<{ position: number }[]>`select position from event_stream`;
    return row?.position ?? 0;
  }
  function subscribe(filter: EventFilter, after: number | null, from: EventsStage = stage) {
    const controller = new AbortController();
    ending.push(controller);
    const cursor = after === null ? null : eventCursor(after);
    return from.events.subscribe(everything, filter, cursor, controller.signal)[Symbol.asyncIterator]();
  }
  /** Resolves once the stream is live, with what gives its first item. */
  async function live(stream: AsyncIterator<StoredEvent | StreamGap>) {
    const before = stage.subscribers;
    const first = stream.next();
    await eventually(() => stage.subscribers > before);
    return () => first;
  }
  const store = (kind: EventKind, count = 1) =>
    stage.store(...Array.from({ length: count }, () => newEvent({ agentUid, kind })));
  const past = async () => {
    await time.pass(1);
    await time.pass(8);
  };
  /** Positions as they are relative to where the test began; a gap by its ends. */
  const told = (items: readonly (StoredEvent | StreamGap)[]) =>
    items.map((item) =>
      'position' in item
        ? item.position - begin
        : `${positionIn(item.from ?? '') - begin}–${positionIn(item.to) - begin} ${item.reason}`,
    );
  const reason = (...kinds: EventKind[]) => `Past their retention: ${kinds.join(', ')}`;

  it('tell what is gone where it ends, after what is left from before that', async () => {
    await store('threats', 2);
    await store('logs', 2);
    await store('threats');
    await store('heartbeat');
    await past();
    await store('logs');
    const kinds = new Set<EventKind>(['threats', 'logs', 'heartbeat']);
    const stream = subscribe({ kinds: [...kinds] }, begin + 1);
    expect(told(await take(stream, 4))).toEqual([2, 5, `1–6 ${reason('heartbeat', 'logs')}`, 7]);
    await store('logs');
    expect(told(await take(stream, 1))).toEqual([8]);
    expect(told(await take(subscribe({ kinds: [...kinds] }, begin + 5), 1))).toEqual([`5–6 ${reason('heartbeat')}`]);
    expect(told(await take(subscribe({ kinds: [...kinds] }, begin + 6), 2))).toEqual([7, 8]);
  });

  it('tell nothing to whom nothing is missing: other kinds, a later cursor, from now on', async () => {
    await store('logs', 2);
    await store('threats');
    await past();
    expect(told(await take(subscribe({ kinds: ['threats'] }, begin), 1))).toEqual([3]);
    expect(told(await take(subscribe({}, begin + 2), 1))).toEqual([3]);
    const next = await live(subscribe({}, null));
    await store('logs');
    expect(told([(await next()).value])).toEqual([4]);
  });

  it('tell it also where nothing at all is left', async () => {
    await store('logs', 3);
    await past();
    expect(told(await take(subscribe({ kinds: ['logs'] }, begin), 1))).toEqual([`0–3 ${reason('logs')}`]);
  });

  it('tell it once over many pages', async () => {
    await store('logs', 2);
    await store('threats', 1_100);
    await store('logs', 1);
    await past();
    const items = await take(subscribe({ kinds: ['threats', 'logs'] }, begin), 1_101);
    expect(told(items)).toEqual([
      ...Array.from({ length: 1_100 }, (_, index) => index + 3),
      `0–1103 ${reason('logs')}`,
    ]);
  });

  it('tell it where retention comes in the middle of a slow replay', async () => {
    await store('logs', 1_200);
    const stream = subscribe({ kinds: ['logs'] }, begin);
    await take(stream, 1);
    await past();
    // What had been read before.
    const read = await take(stream, 15);
    expect(told(read)).toEqual(Array.from({ length: 15 }, (_, index) => index + 2));
    expect(told(await take(stream, 1))).toEqual([`16–1200 ${reason('logs')}`]);
    await store('logs');
    expect(told(await take(stream, 1))).toEqual([1_201]);
  });

  it('tell it where retention takes what a reader that was held up had left in the store', async () => {
    const stream = subscribe({ kinds: ['logs'] }, null);
    const first = await live(stream);
    await store('logs', 1_200);
    const read = [(await first()).value];
    await past();
    let [item] = await take(stream, 1);
    for (; item && 'position' in item; [item] = await take(stream, 1)) read.push(item);
    expect(told(read)).toEqual(read.map((_, index) => index + 1));
    expect(read.length).toBeLessThan(1_200);
    expect(item && told([item])).toEqual([`${read.length}–1200 ${reason('logs')}`]);
    await store('logs');
    expect(told(await take(stream, 1))).toEqual([1_201]);
  });

  it('tell those who are live what a gateway could not give them because it came too late', async () => {
    const still = await startEvents(await open.another(), { clock: { ...stillClock, now: time.now }, retentionMs });
    const streams = [{ kinds: ['logs', 'threats'] as const }, { kinds: ['threats'] as const }, {}].map((filter) =>
      subscribe(filter, null, still),
    );
    const firsts = streams.map((stream) => stream.next());
    await eventually(() => still.subscribers === 3);
    await store('threats');
    await store('logs', 2);
    await store('threats');
    await past();
    still.bus.publish('stored', { position: begin + 4 });
    const rest = await Promise.all(
      streams.map(async (stream, index) => [(await firsts[index])?.value, (await stream.next()).value]),
    );
    expect(rest.map(told)).toEqual([
      [1, `0–3 ${reason('logs')}`],
      [1, 4],
      [1, `0–3 ${reason('logs')}`],
    ]);
    expect(told(await Promise.all(streams.slice(0, 1).map(async (stream) => (await stream.next()).value)))).toEqual([
      4,
    ]);
    for (const controller of ending.splice(0)) controller.abort();
    await still.stop(1_000);
  });

  it('refuse a cursor that is ahead of every event, and take that of the last one', async () => {
    await store('logs');
    await expect(subscribe({}, begin + 2).next()).rejects.toMatchObject({ code: 'CURSOR_INVALID' });
    const next = await live(subscribe({}, begin + 1));
    await store('logs');
    expect(told([(await next()).value])).toEqual([2]);
    expect((await stage.events.page(everything, {}, { first: 1, after: eventCursor(begin + 9) })).items).toEqual([]);
  });

  it('know where they stand though nothing is left', async () => {
    await store('logs');
    await past();
    expect(await stage.events.cursorOfNow()).toBe(eventCursor(begin + 1));
  });
});
