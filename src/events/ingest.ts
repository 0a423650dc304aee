import type { Bus } from '../bus/bus.ts';
import type { Clock } from '../clock.ts';
import type { EventKind, Severity, StoredEvent } from './event.ts';
import type { EventQueries } from './queries.ts';

/** An event that is not stored yet. */
export interface NewEvent {
  /** Tells an event that comes again: a UUID made of the agent's uid and the message's id. */
  readonly key: string;
  /** Tells whether it says the same: a UUID made of the body. */
  readonly bodyHash: string;
  readonly kind: EventKind;
  readonly orgId: string;
  readonly agentUid: string;
  readonly agentName: string;
  readonly messageId: string;
  readonly occurredAt: Date;
  readonly trusted: boolean;
  readonly sealed: boolean;
  readonly severity: Severity;
  readonly replyTo: string | null;
  /** The JSON text that is kept, and what it says; null where sealed. */
  readonly payloadText: string | null;
  readonly payload: unknown;
}

/**
 * What became of an event: `duplicate` was stored before with the same body, `conflict` with another; `refused` is what the
 * database will never take.
 */
export type IngestOutcome = 'stored' | 'duplicate' | 'conflict' | 'refused';

/** Stores events in small groups and shows them once they are on disk. */
export interface Ingest {
  /**
   * Takes an event; `settled` is called once it is durable or known from before, in the order of pushing. Always takes it:
   * whoever pushes must stop reading from its agent while `isSaturated`.
   */
  push(event: NewEvent, settled: (outcome: IngestOutcome) => void): void;

  /** Whether more waits than should. */
  readonly isSaturated: boolean;

  /** Calls back once, when it is no longer saturated. */
  whenDrained(resume: () => void): void;

  /** Events waiting for the database. */
  readonly waiting: number;

  /** Writes what waits, `timeoutMs` at most; what is not written by then stays unsettled. */
  stop(timeoutMs: number): Promise<void>;
}

interface Waiting {
  readonly event: NewEvent;
  readonly settled: (outcome: IngestOutcome) => void;
}

const maxGroupEvents = 500;
const maxGroupBytes = 4 * 1024 * 1024;
const saturatedEvents = 5_000;
const saturatedBytes = 32 * 1024 * 1024;
const firstRetryDelayMs = 250;
const maxRetryDelayMs = 5_000;

/**
 * Group commit that clocks itself: while one group is being written the next one gathers, so an idle gateway stores an event at
 * once and a busy one stores hundreds in a statement. One group at a time keeps every agent's order. A database that
 * does not answer is asked again until it does; nothing that was taken is dropped.
 */
export function createIngest(deps: {
  readonly queries: EventQueries;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly onStored: (kind: EventKind, count: number) => void;
  readonly logError: (error: unknown, context: string) => void;
}): Ingest {
  const { queries, bus, clock } = deps;
  const waiting: Waiting[] = [];
  let waitingBytes = 0;
  let writing = 0;
  let scheduled = false;
  let isStopped = false;
  let resumes: (() => void)[] = [];
  let idle: (() => void)[] = [];

  const isSaturated = () => waiting.length > saturatedEvents || waitingBytes > saturatedBytes;

  function schedule(): void {
    if (scheduled || writing > 0 || waiting.length === 0) return;
    scheduled = true;
    // After the events that this turn of the loop has read.
    setImmediate(() => {
      scheduled = false;
      void write(takeGroup());
    });
  }

  function takeGroup(): Waiting[] {
    const keys = new Set<string>();
    let bytes = 0;
    let count = 0;
    for (const { event } of waiting) {
      // An id that comes twice goes into two groups: the second must see the first.
      if (count === maxGroupEvents || bytes > maxGroupBytes || keys.has(event.key)) break;
      keys.add(event.key);
      bytes += sizeOf(event);
      count++;
    }
    waitingBytes -= bytes;
    return waiting.splice(0, count);
  }

  async function write(group: Waiting[]): Promise<void> {
    writing = group.length;
    const outcomes = await storeUntilDone(group.map(({ event }) => event));
    writing = 0;
    for (const [index, outcome] of outcomes.entries()) group[index]?.settled(outcome);
    if (!isSaturated()) {
      const callbacks = resumes;
      resumes = [];
      for (const resume of callbacks) resume();
    }
    if (waiting.length === 0 && writing === 0) {
      const callbacks = idle;
      idle = [];
      for (const done of callbacks) done();
    }
    schedule();
  }

  async function storeUntilDone(events: readonly NewEvent[]): Promise<IngestOutcome[]> {
    for (let delayMs = firstRetryDelayMs; !isStopped; delayMs = Math.min(2 * delayMs, maxRetryDelayMs)) {
      try {
        return await store(events);
      } catch (error) {
        if (isBadData(error)) return storeOneByOne(events, error);
        deps.logError(error, 'events could not be stored; trying again');
        await new Promise<void>((resolve) => clock.after(delayMs, resolve));
      }
    }
    return [];
  }

  /** One event that the database refuses must not hold up the others. */
  async function storeOneByOne(events: readonly NewEvent[], error: unknown): Promise<IngestOutcome[]> {
    if (events.length <= 1) {
      deps.logError(error, 'the database refuses an event');
      return events.map(() => 'refused');
    }
    const outcomes: IngestOutcome[] = [];
    for (const event of events) outcomes.push(...(await storeUntilDone([event])));
    return outcomes;
  }

  async function store(events: readonly NewEvent[]): Promise<IngestOutcome[]> {
    const receivedAt = new Date(clock.now());
    const positions = await queries.append(events, receivedAt);
    const stored: StoredEvent[] = [];
    const known: string[] = [];
    for (const event of events) {
      const position = positions.get(event.key);
      if (position === undefined) known.push(event.key);
      else stored.push(storedEvent(event, position, receivedAt));
    }
    if (stored.length > 0) {
      bus.publish('events', stored);
      for (const event of stored) deps.onStored(event.kind, 1);
    }
    if (known.length === 0) return events.map(() => 'stored');
    const hashes = await queries.bodyHashes(known);
    return events.map((event) => {
      if (positions.has(event.key)) return 'stored';
      return hashes.get(event.key) === event.bodyHash ? 'duplicate' : 'conflict';
    });
  }

  return {
    push(event, settled) {
      waiting.push({ event, settled });
      waitingBytes += sizeOf(event);
      schedule();
    },
    get isSaturated() {
      return isSaturated();
    },
    whenDrained(resume) {
      resumes.push(resume);
    },
    get waiting() {
      return waiting.length + writing;
    },
    async stop(timeoutMs) {
      if (waiting.length + writing > 0)
        await new Promise<void>((resolve) => {
          const cancel = clock.after(timeoutMs, resolve);
          idle.push(() => {
            cancel();
            resolve();
          });
        });
      isStopped = true;
    },
  };
}

/** SQLSTATE classes 22, data exception, and 23, integrity constraint violation: the same again will fail again. */
function isBadData(error: unknown): boolean {
  return error instanceof Error && 'code' in error && /^2[23]/.test(String(error.code));
}

function sizeOf(event: NewEvent): number {
  return 512 + (event.payloadText?.length ?? 0);
}

function storedEvent(event: NewEvent, position: number, receivedAt: Date): StoredEvent {
  return {
    position,
    kind: event.kind,
    orgId: event.orgId,
    agentUid: event.agentUid,
    agentName: event.agentName,
    messageId: event.messageId,
    occurredAt: event.occurredAt,
    receivedAt,
    trusted: event.trusted,
    sealed: event.sealed,
    severity: event.severity,
    replyTo: event.replyTo,
    payload: event.payload,
  };
}
