import type { Scope } from '../access/scope.ts';
import { type Backlog, createBacklog } from '../bus/backlog.ts';
import type { Bus } from '../bus/bus.ts';
import { endable } from '../bus/endable.ts';
import { type Clock, poll } from '../clock.ts';
import { AegisError } from '../errors.ts';
import { positionIn } from './cursor.ts';
import { type EventFilter, matchesFilter, type StoredEvent, type StreamGap } from './event.ts';
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
/** So much one subscriber holds of a page, or of what has come live; it may be an event more. */
const maxHeldBytes = 512 * 1024;
/** The first page of a replay, when nobody knows yet how large its events are. */
const firstPageSize = 16;
const maxQueuedEvents = 10_000;
const pollIntervalMs = 1_000;
/** So long, and in so many groups, events may come before those that they follow: writers overtake each other by a moment. */
const overtakingMs = 50;
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
  const releases: (() => void)[] = [];
  let isStopped = false;
  /** Every event up to here has been given to the subscribers. */
  let head = 0;
  /** Events up to here are known to exist. */
  let target = 0;
  let isReading = false;
  /** Groups that came before those that they follow, by their first position. */
  const early = new Map<number, readonly StoredEvent[]>();
  let cancelWait: (() => void) | null = null;

  function advance(events: readonly StoredEvent[]): void {
    for (const event of events) {
      if (event.position <= head) continue;
      head = event.position;
      for (const { from, wants, backlog } of subscribers)
        if (event.position > from && wants(event)) offer(backlog, event);
    }
  }

  function offer(backlog: Subscriber['backlog'], item: StreamItem): void {
    backlog.offer(backlog.waitingBytes < maxHeldBytes ? item : leftInStore);
  }

  /** The same for what was read from the store, where retention may have been before. */
  function advanceThrough(through: number, events: readonly StoredEvent[], dropped: DroppedThrough): void {
    for (const { from, wants, gaps, backlog } of subscribers) {
      const after = Math.max(head, from);
      if (through <= after) continue;
      const wanted = events.filter((event) => event.position > after && wants(event));
      for (const item of gaps.tell({ after, through, events: wanted, dropped })) offer(backlog, item);
    }
    head = Math.max(head, through);
  }

  function receive(events: readonly StoredEvent[]): void {
    const first = events[0];
    if (!first) return;
    // Positions are dense: a jump means that other events have not been heard of yet.
    if (first.position > head + 1 && subscribers.size > 0) {
      wait(first.position, events);
      return;
    }
    advance(events);
    for (let next = early.get(head + 1); next; next = early.get(head + 1)) advance(next);
    if (cancelWait && ![...early.keys()].some((position) => position > head)) {
      endWait();
      reach(target);
    }
  }

  /** Another gateway has told how far it has come; or this one, after the events themselves. */
  function hear(position: number): void {
    target = Math.max(target, position);
    if (!cancelWait && position > head) reach(position);
  }

  function wait(position: number, events: readonly StoredEvent[]): void {
    early.set(position, events);
    if (early.size > maxEarlyGroups) readInstead();
    else cancelWait ??= clock.after(overtakingMs, readInstead);
  }

  function readInstead(): void {
    const last = Math.max(...[...early.values()].map((events) => events.at(-1)?.position ?? 0));
    endWait();
    reach(last);
  }

  function endWait(): void {
    cancelWait?.();
    cancelWait = null;
    early.clear();
  }

  /** Brings the stream up to `position`, of which something has been heard. */
  function reach(position: number): void {
    target = Math.max(target, position);
    // Nobody listens, so nobody misses what lies between.
    if (subscribers.size === 0) head = Math.max(head, target);
    else if (!isReading) void readOn();
  }

  async function readOn(): Promise<void> {
    isReading = true;
    try {
      while (head < target && !isStopped) {
        const { events, last } = await queries.since(head, pageSize);
        const through = last ?? target;
        // Positions are dense: a hole is what retention took, or what this version does not know.
        const hasHoles = events.length < through - head;
        advanceThrough(through, events, hasHoles ? await queries.droppedThrough() : nothingDropped);
      }
    } catch (error) {
      if (!isStopped) deps.logError(error, 'the event stream could not be read on');
    } finally {
      isReading = false;
    }
  }

  async function* replayThenLive(
    scope: Scope,
    filter: EventFilter,
    after: number | null,
    signal: AbortSignal,
  ): AsyncGenerator<StreamItem> {
    if (after !== null && after > head && after > (await queries.headPosition()))
      throw new AegisError('CURSOR_INVALID', 'The cursor is ahead of every event: is it of another database?');
    let seen = after ?? head;
    // A reader that has left something in the store comes back as one that was cut off would.
    while (!signal.aborted && !isStopped) {
      for await (const item of untilLeftInStore(scope, filter, seen, signal)) {
        yield item;
        seen = placeOf(item);
      }
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
      signal.removeEventListener('abort', backlog.end);
    }
  }

  return {
    async start() {
      releases.push(
        bus.subscribe('events', receive),
        bus.subscribe('stored', ({ position }) => hear(position)),
      );
      reach(await queries.headPosition());
      // What a lost hint, or a commit whose answer was lost, left behind.
      const look = poll(
        clock,
        pollIntervalMs,
        async () => reach(await queries.headPosition()),
        (error) => deps.logError(error, 'the head of the event stream could not be read'),
      );
      releases.push(bus.subscribe('missed', look.now), look.stop);
    },
    subscribe: (scope, filter, after, signal) =>
      endable(signal, (ending) => replayThenLive(scope, filter, after, ending)),
    get subscribers() {
      return subscribers.size;
    },
    stop() {
      for (const release of releases.splice(0)) release();
      isStopped = true;
      endWait();
      for (const { backlog } of subscribers) backlog.end();
    },
  };
}

/** The position up to which whoever was given the item has been given everything. */
function placeOf(item: StreamItem): number {
  return 'position' in item ? item.position : positionIn(item.to);
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
