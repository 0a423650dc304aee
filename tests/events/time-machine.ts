import { systemClock } from '../../src/clock.ts';
import type { Database } from '../../src/db/database.ts';
import { type EventKind, eventKinds } from '../../src/events/event.ts';
import { createStreamHours } from '../../src/events/hours.ts';
import { createPartitions } from '../../src/events/partitions.ts';
import { createRetention } from '../../src/events/retention.ts';

const hourMs = 3_600_000;

/** Lets hours pass for a database: what a gateway's retention does every minute, done when a test says so. */
export interface TimeMachine {
  /** What the gateways of the test have for a clock: it stands where it was put last. */
  now(): number;
  /** Hours since the machine was made. */
  hour: number;
  /** Goes forward by so many hours and has retention done. */
  pass(hours: number): Promise<void>;
  /** Has retention done once more, as another gateway would. */
  retain(retentionMs?: ReadonlyMap<EventKind, number>): Promise<void>;
  /** The names of the partitions of events of a kind. */
  partitions(kind: EventKind): Promise<string[]>;
}

export function retentionHours(hours: number, given: Partial<Record<EventKind, number>> = {}) {
  return new Map(eventKinds.map((kind) => [kind, (given[kind] ?? hours) * hourMs]));
}

/** It begins a day's first hour 1000 days ago: of the gateway's clock and the database's the earlier one counts. */
export function createTimeMachine(database: Database, usual: ReadonlyMap<EventKind, number>): TimeMachine {
  const beginMs = Math.floor(Date.now() / (24 * hourMs) - 1_000) * 24 * hourMs;
  const machine: TimeMachine = {
    hour: 0,
    now: () => beginMs + machine.hour * hourMs,
    async pass(hours) {
      machine.hour += hours;
      await machine.retain();
    },
    async retain(retentionMs = usual) {
      const errors: unknown[] = [];
      const retention = createRetention({
        partitions: createPartitions(database),
        hours: createStreamHours(database),
        ...{ clock: systemClock, machineMs: machine.now },
        retentionMs,
        logError: (error) => errors.push(error),
      });
      await retention.start();
      retention.stop();
      if (errors.length > 0) throw errors[0];
    },
    async partitions(kind) {
      const rows = await database.sql<{ name: string }[]>`
        select inhrelid::regclass::text as name from pg_inherits where inhparent = ${`events_${kind}`}::regclass order by 1`;
      return rows.map(({ name }) => name);
    },
  };
  return machine;
}
