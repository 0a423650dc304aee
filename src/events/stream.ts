import type { Scope } from '../access/scope.ts';
import { type Backlog, createBacklog } from '../bus/backlog.ts';
import type { Bus } from '../bus/bus.ts';
import { endable } from '../bus/endable.ts';
import { type Clock, repeat } from '../clock.ts';
import { type EventFilter, matchesFilter, type StoredEvent } from './event.ts';
import type { EventQueries } from './queries.ts';

/** The stream of all events, in the order of their positions: from the store first, then live. */
export interface EventStream {
  /** Finds out where the stream stands and follows it from there. */
  start(): Promise<void>;
  /**
   * Events beyond `after`, or from now on where it is null, without a gap or a repeat.
   * Throws SLOW_CONSUMER where the reader falls too far behind. Ends when `signal` aborts or the stream stops.
   */
  subscribe(scope: Scope, filter: EventFilter, after: number | null, signal: AbortSignal): AsyncIterable<StoredEvent>;
  readonly subscribers: number;
  /** Ends every subscription. */
  stop(): void;
}

interface Subscriber {
  /** What comes up to here the subscriber has seen, or reads from the store by itself. */
  readonly from: number;
  readonly wants: (event: StoredEvent) => boolean;
  readonly backlog: Backlog<StoredEvent>;
}

const pageSize = 500;
const maxQueuedEvents = 10_000;
const maxQueuedBytes = 64 * 1024 * 1024;
const pollIntervalMs = 1_000;
/** So long, and in so many groups, events may come before those that they follow: writers overtake each other by a moment. */
const overtakingMs = 50;
const maxEarlyGroups = 256;

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
        if (event.position > from && wants(event)) backlog.offer(event);
    }
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
        const page = await queries.since(head, pageSize);
        // What was there and is not any more is past its retention.
        if (page.length === 0) head = target;
        advance(page);
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
  ): AsyncGenerator<StoredEvent> {
    const stored = (seen: number, until: number) =>
      queries.page(scope, filter, { limit: pageSize, backwards: false, after: seen, before: until });
    const isOver = () => signal.aborted || isStopped;
    let seen = after ?? head;
    // Until what is left is little enough to be kept while it is read.
    while (head - seen > pageSize && !isOver()) {
      const until = head + 1;
      const page = await stored(seen, until);
      yield* page.slice(0, pageSize);
      seen = page.length > pageSize ? (page[pageSize - 1]?.position ?? seen) : until - 1;
    }
    if (isOver()) return;

    const backlog = createBacklog<StoredEvent>({ maxItems: maxQueuedEvents, maxBytes: maxQueuedBytes, sizeBytes });
    const from = Math.max(seen, head);
    const wants = (event: StoredEvent) =>
      (scope.orgId === null || event.orgId === scope.orgId) && matchesFilter(event, filter);
    const subscriber = { from, backlog, wants };
    signal.addEventListener('abort', backlog.end);
    subscribers.add(subscriber);
    try {
      if (seen < from) yield* (await stored(seen, from + 1)).values();
      for (let event = await backlog.next(); event; event = await backlog.next()) yield event;
    } finally {
      subscribers.delete(subscriber);
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
      const poll = async () => reach(await queries.headPosition());
      releases.push(
        repeat(clock, pollIntervalMs, poll, (error) =>
          deps.logError(error, 'the head of the event stream could not be read'),
        ),
      );
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

const sizes = new WeakMap<StoredEvent, number>();

/** What an event holds of memory, roughly; worked out once, whatever the number of subscribers. */
function sizeBytes(event: StoredEvent): number {
  let size = sizes.get(event);
  if (size === undefined) {
    size = 512 + 2 * (JSON.stringify(event.payload)?.length ?? 0);
    sizes.set(event, size);
  }
  return size;
}
