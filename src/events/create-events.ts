import type { Bus } from '../bus/bus.ts';
import { type Clock, repeat } from '../clock.ts';
import type { Database } from '../db/database.ts';
import { AegisError } from '../errors.ts';
import { groupBy } from '../group-by.ts';
import { decodeCursor, encodeCursor, keysetRange, type Page, pageOf } from '../paging.ts';
import type { EventKind, StoredEvent } from './event.ts';
import type { Events } from './events.ts';
import { createIngest, type Ingest } from './ingest.ts';
import { createEventQueries } from './queries.ts';
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

/** How long an event that comes again is known for one; see docs/EVENTS.md. */
const recentIdsWindowMs = 24 * 3_600_000;
const forgetIntervalMs = 10_000;
const forgetAtOnce = 5_000;

export function createEvents(deps: {
  readonly database: Database;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly onStored: (kind: EventKind, count: number) => void;
  readonly logError: (error: unknown, context: string) => void;
}): EventsPart {
  const { clock } = deps;
  const queries = createEventQueries(deps.database);
  const ingest = createIngest({ ...deps, queries });
  const stream = createEventStream({ ...deps, queries });
  let stopForgetting = () => {};

  const cursorOf = (event: StoredEvent) => encodeCursor('event', event.position);
  function positionOf(cursor: string): number {
    const position = Number(decodeCursor('event', cursor));
    if (!Number.isSafeInteger(position) || position < 0) throw new AegisError('CURSOR_INVALID');
    return position;
  }

  const events: Events = {
    cursorOf,
    positionOf,
    async page(scope, filter, request) {
      const range = keysetRange(request, positionOf);
      return pageOf(range, await queries.page(scope, filter, range));
    },
    async pageByAgent(agentUids, filter, range) {
      const found = groupBy(await queries.pageByAgent(agentUids, filter, range), (event) => event.agentUid);
      return new Map<string, Page<StoredEvent>>(agentUids.map((uid) => [uid, pageOf(range, found.get(uid) ?? [])]));
    },
    findAll: (scope, positions) => queries.findAll(scope, positions),
    async repliesTo(messageIds) {
      return groupBy(await queries.repliesTo(messageIds), (event) => event.replyTo ?? '');
    },
    subscribe(scope, filter, after, signal) {
      return stream.subscribe(scope, filter, after === null ? null : positionOf(after), signal);
    },
  };

  function forgetOldIds(): Promise<number> {
    return queries.forgetIds(new Date(clock.now() - recentIdsWindowMs), forgetAtOnce);
  }

  return {
    events,
    ingest,
    get subscribers() {
      return stream.subscribers;
    },
    async start() {
      await stream.start();
      stopForgetting = repeat(clock, forgetIntervalMs, forgetOldIds, (error) =>
        deps.logError(error, 'old event ids could not be forgotten'),
      );
    },
    async stop(timeoutMs) {
      stopForgetting();
      await ingest.stop(timeoutMs);
      stream.stop();
    },
  };
}
