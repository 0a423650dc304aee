import type { Scope } from '../access/scope.ts';
import { type Backlog, createBacklog } from '../bus/backlog.ts';
import type { Bus } from '../bus/bus.ts';
import { endable } from '../bus/endable.ts';
import { type Clock, poll } from '../clock.ts';
import { AegisError } from '../errors.ts';
import { positionIn } from './cursor.ts';
import { type EventFilter, matchesFilter, type StoredEvent, type StreamGap } from './event.ts';
import { readGroups } from './event-text.ts';
import { createGapTeller, type DroppedThrough } from './gaps.ts';
import type { EventQueries } from './queries.ts';

/** The stream of all events, in the order of their positions: from the store first, then live. */
export interface EventStream {
  /** Finds out where the stream stands and follows it from there. */
  start(): Promise<void>;
  /**
   * Events beyond `after`, or from now on where it is null, without a repeat, and with a gap told where retention was there
   * first. Throws SLOW_CONSUMER where the reader falls too far behind, CURSOR_INVALID where `after` is ahead of every event.
   * Ends when `signal` aborts or the stream stops.
   */
  subscribe(scope: Scope, filter: EventFilter, after: number | null, signal: AbortSignal): AsyncIterable<StreamItem>;
  readonly subscribers: number;
  /** Ends every subscription. */
  stop(): void;
}

type StreamItem = StoredEvent | StreamGap;

/** Stands for an item that is in the store, and that the subscriber reads from there when its turn comes. */
interface LeftInStore {
  readonly left: true;
}

const leftInStore: LeftInStore = { left: true };

interface Subscriber {
  /** What comes up to here the subscriber has seen, or reads from the store by itself. */
  readonly from: number;
  readonly wants: (event: StoredEvent) => boolean;
  readonly gaps: ReturnType<typeof createGapTeller>;
  readonly backlog: Backlog<StreamItem | LeftInStore>;
}

const pageSize = 500;
/** So much one subscriber holds of a page, or of what has come live; it may be an event more, or live a group more. */
const maxHeldBytes = 512 * 1024;
/** The first page of a replay, when nobody knows yet how large its events are. */
const firstPageSize = 16;
const maxQueuedEvents = 10_000;
const pollIntervalMs = 1_000;
/** So long, and in so many groups, events may come before those that they follow: writers overtake each other by a moment. */
const overtakingMs = 50;
/** The same where a bus brings what other gateways store: one that is busy tells late, and reading would make it all busier. */
const overtakingByBusMs = 500;
const maxEarlyGroups = 256;
const nothingDropped: DroppedThrough = new Map();

export function createEventStream(deps: {
  readonly queries: EventQueries;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly logError: (error: unknown, context: string) => void;
}): EventStream {
  const { queries, bus, clock } = deps;
  const subscribers = new Set<Subscriber>();
  /** Those who have been given a subscription, whether they are live or still read from the store. */
  let readers = 0;
  const releases: (() => void)[] = [];
  let isStopped = false;
  /** Every event up to here has been given to the subscribers. What is only told does not move it: that may be wrong. */
  let head = 0;
  /** Events up to here exist, as the database says or another gateway tells. */
  let target = 0;
  let isReading = false;
  /** Where the database said that the stream stands. */
  let known = 0;
  /** Something that was told since then is known to be missing. */
  let isMissing = false;
  let leaveBodies = () => {};
  let isStrange = false;
  /** Groups that came before those that they follow, by their first position. */
  const early = new Map<number, readonly StoredEvent[]>();
  let cancelWait: (() => void) | null = null;

  function advance(events: readonly StoredEvent[]): void {
    // By whole groups: nobody could take one event by one while a group is given, and each would read the rest from the store.
    const withRoom = new Set([...subscribers].filter(hasRoom));
    for (const event of events) {
      if (event.position <= head) continue;
      head = event.position;
      for (const subscriber of subscribers)
        if (event.position > subscriber.from && subscriber.wants(event))
          subscriber.backlog.offer(withRoom.has(subscriber) ? event : leftInStore);
    }
  }

  /** The same for what was read from the store, where retention may have been before. */
  function advanceThrough(through: number, events: readonly StoredEvent[], dropped: DroppedThrough): void {
    for (const subscriber of subscribers) {
      const { from, wants, gaps, backlog } = subscriber;
      const after = Math.max(head, from);
      if (through <= after) continue;
      const wanted = events.filter((event) => event.position > after && wants(event));
      for (const item of gaps.tell({ after, through, events: wanted, dropped }))
        backlog.offer(hasRoom(subscriber) ? item : leftInStore);
    }
    head = Math.max(head, through);
  }

  function receive(events: readonly StoredEvent[]): void {
    const first = events[0];
    if (!first) return;
    // Positions are dense: a jump means that other events have not been heard of yet.
    if (first.position > head + 1 && subscribers.size > 0) {
      keepEarly(first.position, events);
      return;
    }
    advance(events);
    advanceEarly();
  }

  /** What other gateways have stored, where anybody here listens. What cannot be read is read from the store. */
  function receiveText(text: string): void {
    const groups = readGroups(text);
    for (const events of groups ?? []) receive(events);
    if (groups === null && !isStrange)
      deps.logError(
        new Error('not in a form that this version knows'),
        'events of another gateway are read from the store',
      );
    isStrange = groups === null;
  }

  /** What came early and follows by now. */
  function advanceEarly(): void {
    for (let first = firstEarly(); first !== null && first <= head + 1; first = firstEarly()) {
      advance(early.get(first) ?? []);
      early.delete(first);
    }
    if (early.size > 0) wait();
    else if (cancelWait) {
      endWait();
      reach(target);
    }
  }

  function firstEarly(): number | null {
    return early.size === 0 ? null : Math.min(...early.keys());
  }

  /** Another gateway has told how far it has come. Where it told of the events themselves, those have come before this. */
  function hear(position: number): void {
    target = Math.max(target, position);
    const isWaiting = [...early.values()].some(
      (events) => position >= (events[0]?.position ?? 0) && position <= (events.at(-1)?.position ?? 0),
    );
    if (subscribers.size > 0 && position > head && !isWaiting) reach(position);
  }

  function keepEarly(position: number, events: readonly StoredEvent[]): void {
    early.set(position, events);
    if (early.size <= maxEarlyGroups) wait();
    else {
      const last = Math.max(...[...early.values()].map((group) => group.at(-1)?.position ?? 0));
      endWait();
      reach(last);
    }
  }

  /** Waits for what is missing before the events that came early, and reads it from the store where it does not come. */
  function wait(): void {
    const since = head;
    const ms = bus.peers.length > 0 ? overtakingByBusMs : overtakingMs;
    cancelWait ??= clock.after(ms, () => {
      cancelWait = null;
      const first = firstEarly();
      if (first === null) return;
      // Where the stream has moved on, it is something else that is missing now.
      if (head === since) reach(first - 1);
      else wait();
    });
  }

  function endWait(): void {
    cancelWait?.();
    cancelWait = null;
    early.clear();
  }

  /** Asks the database where the stream stands, and brings it there. */
  async function look(): Promise<void> {
    const before = known;
    const isOnItsWay = bus.peers.length > 0 && !isMissing;
    isMissing = false;
    await ask();
    // Nobody listens, so nobody misses what lies between.
    if (subscribers.size === 0) head = Math.max(head, known);
    // Where a bus brings the news, or tells that it has not, only what was there at the last look and has not come is read.
    reach(isOnItsWay ? before : known);
  }

  async function ask(): Promise<void> {
    known = Math.max(known, await queries.headPosition());
  }

  /** Brings the stream up to `position`, of which something has been heard. */
  function reach(position: number): void {
    target = Math.max(target, position);
    if (subscribers.size > 0 && !isReading) void readOn();
  }

  async function readOn(): Promise<void> {
    isReading = true;
    try {
      while (head < target && !isStopped) {
        const told = target;
        // No more than is missing before what came early.
        const missing = (firstEarly() ?? Number.POSITIVE_INFINITY) - head - 1;
        const { events, last } = await queries.since(head, Math.min(pageSize, missing));
        if (last === null && told > known) {
          await doubt(told);
          continue;
        }
        const through = last ?? told;
        // Positions are dense: a hole is what retention took, or what this version does not know.
        const hasHoles = events.length < through - head;
        advanceThrough(through, events, hasHoles ? await queries.droppedThrough() : nothingDropped);
        advanceEarly();
      }
    } catch (error) {
      if (!isStopped) deps.logError(error, 'the event stream could not be read on');
    } finally {
      isReading = false;
    }
  }

  /** Whoever reads is live soon, or again: what other gateways tell is taken all the while. */
  function come(): void {
    readers++;
    if (readers === 1) leaveBodies = bus.subscribe('bodies', ({ text }) => receiveText(text));
  }

  function leave(): void {
    readers--;
    if (readers === 0) leaveBodies();
  }

  /** There is nothing where something was told of: either retention took it, or somebody made it up. */
  async function doubt(told: number): Promise<void> {
    await ask();
    if (target === told) target = Math.min(told, known);
    for (const first of early.keys()) if (first > known) early.delete(first);
  }

  async function* replayThenLive(
    scope: Scope,
    filter: EventFilter,
    after: number | null,
    signal: AbortSignal,
  ): AsyncGenerator<StreamItem> {
    if (after !== null && after > head && after > (await queries.headPosition()))
      throw new AegisError('CURSOR_INVALID', 'The cursor is ahead of every event: is it of another database?');
    // Nobody has listened, so what others told of was not followed.
    if (subscribers.size === 0 && target > head) await look();
    let seen = after ?? head;
    come();
    try {
      // A reader that has left something in the store comes back as one that was cut off would.
      while (!signal.aborted && !isStopped) {
        for await (const item of untilLeftInStore(scope, filter, seen, signal)) {
          yield item;
          seen = placeOf(item);
        }
      }
    } finally {
      leave();
    }
  }

  /** The same from `after` on, until the reader comes to what was left in the store. */
  async function* untilLeftInStore(
    scope: Scope,
    filter: EventFilter,
    after: number,
    signal: AbortSignal,
  ): AsyncGenerator<StreamItem> {
    const isOver = () => signal.aborted || isStopped;
    const gaps = createGapTeller(filter.kinds);
    let seen = after;
    let limit = firstPageSize;

    /** A page of what is stored, up to `until` at the most. */
    async function replayed(until: number): Promise<readonly StreamItem[]> {
      const range = { limit, backwards: false, after: seen, before: until + 1 };
      const page = await queries.page(scope, filter, range);
      const dropped = await queries.droppedThrough();
      const events = held(page.slice(0, limit));
      const through = page.length > events.length ? (events.at(-1)?.position ?? until) : until;
      limit = Math.min(pageSize, 4 * Math.max(1, events.length));
      const items = gaps.tell({ after: seen, through, events, dropped });
      seen = through;
      return items;
    }

    // Until what is left is little enough to be kept while it is read.
    while (head - seen > pageSize && !isOver()) yield* await replayed(head);
    if (isOver()) return;

    const backlog: Subscriber['backlog'] = createBacklog({ maxItems: maxQueuedEvents, sizeBytes });
    const from = Math.max(seen, head);
    const wants = (event: StoredEvent) =>
      (scope.orgId === null || event.orgId === scope.orgId) && matchesFilter(event, filter);
    const subscriber = { from, backlog, wants, gaps };
    signal.addEventListener('abort', backlog.end);
    subscribers.add(subscriber);
    try {
      while (seen < from && !isOver()) yield* await replayed(from);
      for (let item = await backlog.next(); item && !('left' in item); item = await backlog.next()) yield item;
    } finally {
      subscribers.delete(subscriber);
      if (subscribers.size === 0) endWait();
      signal.removeEventListener('abort', backlog.end);
    }
  }

  return {
    async start() {
      releases.push(
        bus.subscribe('events', ({ events }) => receive(events)),
        bus.subscribe('stored', ({ position }) => hear(position)),
      );
      await look();
      // What a lost hint, or a commit whose answer was lost, left behind.
      const polling = poll(clock, pollIntervalMs, look, (error) =>
        deps.logError(error, 'the head of the event stream could not be read'),
      );
      const onMissed = () => {
        isMissing = true;
        polling.now();
      };
      releases.push(bus.subscribe('missed', onMissed), polling.stop);
    },
    subscribe: (scope, filter, after, signal) =>
      endable(signal, (ending) => replayThenLive(scope, filter, after, ending)),
    get subscribers() {
      return subscribers.size;
    },
    stop() {
      for (const release of releases.splice(0)) release();
      isStopped = true;
      leaveBodies();
      endWait();
      for (const { backlog } of subscribers) backlog.end();
    },
  };
}

/** The position up to which whoever was given the item has been given everything. */
function placeOf(item: StreamItem): number {
  return 'position' in item ? item.position : positionIn(item.to);
}

function hasRoom({ backlog }: Subscriber): boolean {
  return backlog.waitingBytes < maxHeldBytes;
}

/** As many of the first events as one subscriber may hold. */
function held(events: readonly StoredEvent[]): readonly StoredEvent[] {
  let bytes = 0;
  const end = events.findIndex((event) => {
    const isFull = bytes >= maxHeldBytes;
    bytes += sizeBytes(event);
    return isFull;
  });
  return end === -1 ? events : events.slice(0, end);
}

const sizes = new WeakMap<StreamItem | LeftInStore, number>();

/** What an item holds of memory, roughly; worked out once, whatever the number of subscribers. */
function sizeBytes(item: StreamItem | LeftInStore): number {
  if ('left' in item) return 0;
  let size = sizes.get(item);
  if (size === undefined) {
    size = 512 + ('payload' in item ? 2 * (JSON.stringify(item.payload)?.length ?? 0) : 0);
    sizes.set(item, size);
  }
  return size;
}
