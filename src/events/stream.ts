import type { Scope } from '../access/scope.ts';
import type { Bus } from '../bus/bus.ts';
import { type Clock, repeat } from '../clock.ts';
import { AegisError } from '../errors.ts';
import { type EventFilter, matchesFilter, type StoredEvent } from './event.ts';
import type { EventQueries } from './queries.ts';

/** The stream of all events, in the order of their positions: from the store first, then live. */
export interface EventStream {
  /** Finds out where the stream stands and follows it from there. */
  start(): Promise<void>;
  /**
   * Events beyond `after`, or from now on where it is null, without a gap or a repeat.
   * Throws SLOW_CONSUMER where the reader falls too far behind. Ends when `signal` aborts.
   */
  subscribe(scope: Scope, filter: EventFilter, after: number | null, signal: AbortSignal): AsyncIterable<StoredEvent>;
  readonly subscribers: number;
  stop(): void;
}

interface Subscriber {
  readonly wants: (event: StoredEvent) => boolean;
  readonly queue: StoredEvent[];
  wake: () => void;
  overrun: boolean;
}

const pageSize = 500;
const maxQueuedEvents = 10_000;
const pollIntervalMs = 1_000;

export function createEventStream(deps: {
  readonly queries: EventQueries;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly logError: (error: unknown, context: string) => void;
}): EventStream {
  const { queries, bus, clock } = deps;
  const subscribers = new Set<Subscriber>();
  const releases: (() => void)[] = [];
  /** Every event up to here has been given to the subscribers. */
  let head = 0;
  let catchingUp: Promise<void> | null = null;

  function advance(events: readonly StoredEvent[]): void {
    for (const event of events) {
      if (event.position <= head) continue;
      head = event.position;
      for (const subscriber of subscribers) offer(subscriber, event);
    }
  }

  function receive(events: readonly StoredEvent[]): void {
    const first = events[0];
    if (!first) return;
    // Positions are dense: a jump means that another gateway's events have not been heard of yet.
    if (first.position > head + 1 || catchingUp) catchUp();
    else advance(events);
  }

  /** Reads from the store what the bus did not bring. What comes over the bus meanwhile is in the store as well. */
  function catchUp(): void {
    catchingUp ??= readOn()
      .catch((error) => deps.logError(error, 'the event stream could not be read on'))
      .finally(() => {
        catchingUp = null;
      });
  }

  async function readOn(): Promise<void> {
    for (;;) {
      const behind = head;
      advance(await queries.since(behind, pageSize));
      if (head === behind) return;
    }
  }

  async function poll(): Promise<void> {
    if (subscribers.size > 0 && (await queries.headPosition()) > head) catchUp();
  }

  async function* replayThenLive(
    scope: Scope,
    filter: EventFilter,
    after: number | null,
    signal: AbortSignal,
  ): AsyncGenerator<StoredEvent> {
    const wants = (event: StoredEvent) =>
      (scope.orgId === null || event.orgId === scope.orgId) && matchesFilter(event, filter);
    let seen = after ?? head;
    // Until what is left is little enough to be buffered while it is read.
    while (head - seen > pageSize && !signal.aborted) {
      const until = head + 1;
      const page = await queries.page(scope, filter, { limit: pageSize, backwards: false, after: seen, before: until });
      yield* page.slice(0, pageSize);
      seen = page.length > pageSize ? (page[pageSize - 1]?.position ?? seen) : until - 1;
    }
    const subscriber: Subscriber = { wants, queue: [], wake: () => {}, overrun: false };
    const wake = () => subscriber.wake();
    const until = head + 1;
    subscribers.add(subscriber);
    signal.addEventListener('abort', wake);
    try {
      if (seen + 1 < until)
        yield* await queries.page(scope, filter, { limit: pageSize, backwards: false, after: seen, before: until });
      while (!signal.aborted) {
        if (subscriber.overrun) throw new AegisError('SLOW_CONSUMER');
        const event = subscriber.queue.shift();
        if (event) yield event;
        else await new Promise<void>((resolve) => (subscriber.wake = resolve));
      }
    } finally {
      subscribers.delete(subscriber);
      signal.removeEventListener('abort', wake);
    }
  }

  return {
    async start() {
      head = await queries.headPosition();
      releases.push(
        bus.subscribe('events', receive),
        repeat(clock, pollIntervalMs, poll, (error) =>
          deps.logError(error, 'the head of the event stream could not be read'),
        ),
      );
    },
    subscribe: replayThenLive,
    get subscribers() {
      return subscribers.size;
    },
    stop() {
      for (const release of releases.splice(0)) release();
    },
  };
}

function offer(subscriber: Subscriber, event: StoredEvent): void {
  if (subscriber.overrun || !subscriber.wants(event)) return;
  if (subscriber.queue.length >= maxQueuedEvents) {
    subscriber.overrun = true;
    subscriber.queue.length = 0;
  } else {
    subscriber.queue.push(event);
  }
  subscriber.wake();
}
