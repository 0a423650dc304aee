import type { Bus } from '../bus/bus.ts';
import type { Clock } from '../clock.ts';
import type { Database } from '../db/database.ts';
import { groupBy } from '../group-by.ts';
import { keysetRange, type Page, pageOf } from '../paging.ts';
import type { WallClock } from '../wall-clock.ts';
import { createAppending } from './appending.ts';
import { eventCursor, positionIn } from './cursor.ts';
import type { EventKind, StoredEvent } from './event.ts';
import type { Events } from './events.ts';
import { createStreamHours } from './hours.ts';
import { createIngest, type Ingest } from './ingest.ts';
import { createPartitions } from './partitions.ts';
import { createEventQueries } from './queries.ts';
import { createRetention } from './retention.ts';
import { createEventStream } from './stream.ts';

/** The events part: what consumers read, what links write, and its start and end. */
export interface EventsPart {
  readonly events: Events;
  readonly ingest: Ingest;
  readonly subscribers: number;
  start(): Promise<void>;
  /** Writes what waits, `timeoutMs` at most, and lets go of everything. */
  stop(timeoutMs: number): Promise<void>;
}

/** Two keep the database and this thread busy at the same time; more would only wait for the stream's row. */
const lanes = 2;

export function createEvents(deps: {
  readonly database: Database;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly wall: Pick<WallClock, 'now' | 'machineMs'>;
  readonly onStored: (events: readonly StoredEvent[], startedAt: Date) => void;
  /** How long events of each kind are kept. */
  readonly retentionMs: ReadonlyMap<EventKind, number>;
  readonly logError: (error: unknown, context: string) => void;
}): EventsPart {
  const { database } = deps;
  const hours = createStreamHours(database);
  const queries = createEventQueries({ ...deps, hours });
  const { machineMs } = deps.wall;
  const retention = createRetention({ ...deps, machineMs, hours, partitions: createPartitions(database) });
  const ingest = createIngest({ ...deps, appending: createAppending(database), lanes: database.embedded ? 1 : lanes });
  const stream = createEventStream({ ...deps, queries });

  const events: Events = {
    cursorOf: (event) => eventCursor(event.position),
    cursorOfNow: async () => eventCursor(await queries.headPosition()),
    positionOf: positionIn,
    async page(scope, filter, request) {
      const range = keysetRange(request, positionIn);
      return pageOf(range, await queries.page(scope, filter, range));
    },
    async pageByAgent(scope, agentUids, filter, range) {
      const found = groupBy(await queries.pageByAgent(scope, agentUids, filter, range), (event) => event.agentUid);
      return new Map<string, Page<StoredEvent>>(agentUids.map((uid) => [uid, pageOf(range, found.get(uid) ?? [])]));
    },
    findAll: (scope, positions) => queries.findAll(scope, positions),
    async repliesTo(scope, messageIds) {
      return groupBy(await queries.repliesTo(scope, messageIds), (event) => event.replyTo ?? '');
    },
    subscribe(scope, filter, after, signal) {
      return stream.subscribe(scope, filter, after === null ? null : positionIn(after), signal);
    },
  };

  return {
    events,
    ingest,
    get subscribers() {
      return stream.subscribers;
    },
    async start() {
      await retention.start();
      await stream.start();
    },
    async stop(timeoutMs) {
      retention.stop();
      await ingest.stop(timeoutMs);
      stream.stop();
    },
  };
}
