import type { Bus } from '../bus/bus.ts';
import type { Clock } from '../clock.ts';
import type { Appending } from './appending.ts';
import type { NewEvent, StoredEvent } from './event.ts';
import { groupText } from './event-text.ts';

/**
 * What became of an event: `duplicate` was stored before with the same body, `conflict` with another; `refused` is what the
 * database will never take.
 */
export type IngestOutcome = 'stored' | 'duplicate' | 'conflict' | 'refused';

/** Brings groups of events to the database, and to the bus once they are there. */
export interface EventWriter {
  /**
   * What became of each event of a group. A database that fails is asked again until it answers, so this never rejects;
   * after `stop` it gives up and answers nothing.
   */
  write(group: readonly NewEvent[]): Promise<readonly IngestOutcome[]>;
  stop(): void;
}

const firstRetryDelayMs = 250;
const maxRetryDelayMs = 5_000;

export function createEventWriter(deps: {
  readonly appending: Appending;
  readonly bus: Bus;
  readonly clock: Clock;
  /** What time it is. */
  readonly wall: Pick<Clock, 'now'>;
  /** Called with each group once it is stored, and when that began. */
  readonly onStored: (events: readonly StoredEvent[], startedAt: Date) => void;
  readonly logError: (error: unknown, context: string) => void;
}): EventWriter {
  const { appending, bus, clock, wall } = deps;
  const pauses = new Set<() => void>();
  let isStopped = false;

  async function write(group: readonly NewEvent[]): Promise<readonly IngestOutcome[]> {
    try {
      return await store(group);
    } catch (error) {
      if (group.length === 1) {
        deps.logError(error, 'the database refuses an event');
        return ['refused'];
      }
      // One event that the database refuses must not hold up the others.
      const outcomes: IngestOutcome[] = [];
      for (const event of group) outcomes.push(...(await write([event])));
      return outcomes;
    }
  }

  /** Throws what `untilAnswered` throws. */
  async function store(group: readonly NewEvent[]): Promise<readonly IngestOutcome[]> {
    const distinct = firstOfEachKey(group);
    const receivedAt = new Date(wall.now());
    const positions = await untilAnswered(() => appending.append(distinct, receivedAt));
    if (!positions) return [];
    const stored = new Map<NewEvent, StoredEvent>();
    for (const [index, event] of distinct.entries()) {
      const position = positions[index] ?? null;
      if (position !== null) stored.set(event, storedEvent(event, position, receivedAt));
    }
    if (stored.size > 0) {
      const events = [...stored.values()];
      const payloadTexts = () => [...stored.keys()].map(({ payloadText }) => payloadText);
      bus.publish('events', { events, text: () => groupText(events, payloadTexts()) });
      deps.onStored(events, receivedAt);
    }
    return stored.size === group.length ? group.map(() => 'stored') : await judged(group, distinct, stored);
  }

  /** What became of the events of a group, not all of which are new. */
  async function judged(
    group: readonly NewEvent[],
    distinct: readonly NewEvent[],
    stored: ReadonlyMap<NewEvent, unknown>,
  ): Promise<readonly IngestOutcome[]> {
    const known = distinct.filter((event) => !stored.has(event)).map((event) => event.key);
    const hashes =
      known.length > 0 ? await untilAnswered(() => appending.bodyHashes(known)) : new Map<string, string>();
    if (!hashes) return [];
    const bodyHashes = new Map([...distinct.map(({ key, bodyHash }) => [key, bodyHash] as const), ...hashes]);
    return group.map((event) => {
      if (stored.has(event)) return 'stored';
      return bodyHashes.get(event.key) === event.bodyHash ? 'duplicate' : 'conflict';
    });
  }

  /** Asks a database that fails again until it answers; null once stopped. Throws what the database will never take. */
  async function untilAnswered<Answer>(ask: () => Promise<Answer>): Promise<Answer | null> {
    for (let delayMs = firstRetryDelayMs; !isStopped; delayMs = Math.min(2 * delayMs, maxRetryDelayMs)) {
      try {
        return await ask();
      } catch (error) {
        if (isBadData(error)) throw error;
        deps.logError(error, 'events could not be stored; trying again');
        await pause(delayMs);
      }
    }
    return null;
  }

  function pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = clock.after(delayMs, end);
      pauses.add(end);
      function end(): void {
        cancel();
        pauses.delete(end);
        resolve();
      }
    });
  }

  return {
    write,
    stop() {
      isStopped = true;
      for (const end of [...pauses]) end();
    },
  };
}

function firstOfEachKey(group: readonly NewEvent[]): readonly NewEvent[] {
  const firsts = new Map<string, NewEvent>();
  for (const event of group) if (!firsts.has(event.key)) firsts.set(event.key, event);
  return firsts.size === group.length ? group : [...firsts.values()];
}

/** Whether the same event will fail again whatever becomes of the database: it cannot be written down, or not so much of it. */
function isBadData(error: unknown): boolean {
  // SQLSTATE classes 22, data exception, and 54, program limit exceeded; and not_null_violation.
  const isRefused = error instanceof Error && 'code' in error && /^(?:22|54)...$|^23502$/.test(String(error.code));
  return isRefused || error instanceof TypeError || error instanceof RangeError;
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
