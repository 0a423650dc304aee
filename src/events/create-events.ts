import type { Bus } from '../bus/bus.ts';
import { type Clock, repeat } from '../clock.ts';
import type { Database } from '../db/database.ts';
import { groupBy } from '../group-by.ts';
import { decodeNumericCursor, encodeCursor, keysetRange, type Page, pageOf } from '../paging.ts';
import type { StoredEvent } from './event.ts';
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
/** Two keep the database and this thread busy at the same time; more would only wait for the stream's row. */
const lanes = 2;
const forgetIntervalMs = 10_000;
const forgetAtOnce = 5_000;

export function createEvents(deps: {
  readonly database: Database;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly onStored: (events: readonly StoredEvent[], startedAt: Date) => void;
  readonly logError: (error: unknown, context: string) => void;
}): EventsPart {
  const { clock } = deps;
  const queries = createEventQueries(deps.database);
  const ingest = createIngest({ ...deps, queries, lanes: deps.database.embedded ? 1 : lanes });
  const stream = createEventStream({ ...deps, queries });
  let stopForgetting = () => {};
  let isStopped = false;

  const cursorOf = (event: StoredEvent) => encodeCursor('event', event.position);
  const positionOf = (cursor: string) => decodeNumericCursor('event', cursor);

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

  /** In small bites, so that no event waits long behind them, and until all are gone: they come faster than one bite takes. */
  async function forgetOldIds(): Promise<void> {
    const before = new Date(clock.now() - recentIdsWindowMs);
    while (!isStopped && (await queries.forgetIds(before, forgetAtOnce)) === forgetAtOnce);
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
      isStopped = true;
      stopForgetting();
      await ingest.stop(timeoutMs);
      stream.stop();
    },
  };
}
