import { createHash, randomUUID } from 'node:crypto';
import type { Bus } from '../../src/bus/bus.ts';
import { createMemoryBus } from '../../src/bus/memory-bus.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import type { Database } from '../../src/db/database.ts';
import { createEvents, type EventsPart } from '../../src/events/create-events.ts';
import { type EventKind, eventKinds, type NewEvent, type StoredEvent, type StreamGap } from '../../src/events/event.ts';
import type { IngestOutcome } from '../../src/events/ingest.ts';
import { createWallClock } from '../../src/wall-clock.ts';

/** The events part of one gateway, with a bus of its own. */
export interface EventsStage extends EventsPart {
  readonly bus: Bus;
  readonly errors: string[];
  readonly storedKinds: EventKind[];
  /** Pushes events and resolves with what became of each. */
  store(...events: NewEvent[]): Promise<IngestOutcome[]>;
}

/** The system's clock with delays a twentieth as long: retries, polls and patience without the waiting. */
export const hastyClock: Clock = {
  now: systemClock.now,
  after: (delayMs, task) => systemClock.after(delayMs / 20, task),
  every: (intervalMs, task) => systemClock.every(intervalMs / 20, task),
};

/** A clock that stands still: nothing that waits for it ever happens. */
export const stillClock: Clock = { now: systemClock.now, after: () => () => {}, every: () => () => {} };

export async function startEvents(
  database: Database,
  options: { clock?: Clock; bus?: Bus; retentionMs?: ReadonlyMap<EventKind, number> } = {},
): Promise<EventsStage> {
  const errors: string[] = [];
  const storedKinds: EventKind[] = [];
  const logError = (error: unknown, context: string) => errors.push(`${context}: ${error}`);
  const bus = options.bus ?? createMemoryBus(logError);
  const clock = options.clock ?? hastyClock;
  const part = createEvents({
    ...{ database, bus, clock, wall: createWallClock(clock, { machineMs: () => clock.now() }), logError },
    onStored: (events) => void storedKinds.push(...events.map(({ kind }) => kind)),
    retentionMs: options.retentionMs ?? new Map(eventKinds.map((kind) => [kind, 30 * 86_400_000])),
  });
  await part.start();
  return Object.assign(part, {
    bus,
    errors,
    storedKinds,
    store: (...events: NewEvent[]) =>
      Promise.all(events.map((event) => new Promise<IngestOutcome>((settled) => part.ingest.push(event, settled)))),
  });
}

function digest(text: string): string {
  const hex = createHash('sha256').update(text).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20, 32)}`;
}

/** An event as a link would push it; `key` and `bodyHash` follow from the rest unless they are given. */
export function newEvent(given: Partial<NewEvent> & { readonly agentUid: string }): NewEvent {
  const messageId = given.messageId ?? randomUUID();
  const kind = given.kind ?? 'logs';
  const payload = given.payload === undefined ? { messageId } : given.payload;
  const payloadText = given.payloadText === undefined ? JSON.stringify(payload) : given.payloadText;
  return {
    key: digest(`${given.agentUid}\n${messageId}`),
    bodyHash: digest(`${kind}\n${payloadText}`),
    orgId: 'default-org',
    agentName: 'web-1.example',
    occurredAt: new Date('2026-11-23T12:00:00Z'),
    trusted: true,
    sealed: false,
    severity: 'unknown',
    replyTo: null,
    ...given,
    kind,
    messageId,
    payload,
    payloadText,
  };
}

export function idsOf(items: readonly (StoredEvent | StreamGap)[]): string[] {
  return items.map((item) => ('position' in item ? item.messageId : 'gap'));
}

/** The next `count` items of a stream. */
export async function take<Item>(stream: AsyncIterator<Item>, count: number): Promise<Item[]> {
  const items: Item[] = [];
  while (items.length < count) {
    const result = await stream.next();
    if (result.done) throw new Error(`the stream ended after ${items.length} of ${count} items`);
    items.push(result.value);
  }
  return items;
}
