import type { Bus } from '../bus/bus.ts';
import type { Clock } from '../clock.ts';
import type { Appending } from './appending.ts';
import type { NewEvent, StoredEvent } from './event.ts';
import { createEventWriter, type IngestOutcome } from './event-writer.ts';

export type { IngestOutcome };

/** Stores events in small groups and shows them once they are on disk. */
export interface Ingest {
  /**
   * Takes an event; `settled` is called once it is durable or known from before, for each agent in the order of pushing.
   * Always takes it: whoever pushes must stop reading from its agent while `isSaturated`.
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

/** Events of some agents, in the order in which they came. */
interface Lane {
  waiting: Waiting[];
  /** How many are being written now. */
  writing: number;
  isScheduled: boolean;
}

/**
 * Group commit that clocks itself: while one group is being written the next one gathers, so an idle gateway stores an event at
 * once and a busy one stores hundreds in a statement. An agent's events go through one lane, and a lane writes one group
 * at a time: that keeps their order, while the lanes keep both the database and this thread at work. A database that does
 * not answer is asked again until it does; nothing that was taken is dropped.
 */
export function createIngest(deps: {
  readonly appending: Appending;
  readonly bus: Bus;
  readonly clock: Clock;
  /** What time it is. */
  readonly wall: Pick<Clock, 'now'>;
  /** How many statements the database can take at once. */
  readonly lanes: number;
  readonly onStored: (events: readonly StoredEvent[], startedAt: Date) => void;
  readonly logError: (error: unknown, context: string) => void;
}): Ingest {
  const { clock } = deps;
  const writer = createEventWriter(deps);
  const lanes = Array.from({ length: deps.lanes }, (): Lane => ({ waiting: [], writing: 0, isScheduled: false }));
  let waitingEvents = 0;
  let waitingBytes = 0;
  let isStopped = false;
  const resumes: (() => void)[] = [];
  const idle: (() => void)[] = [];

  const isSaturated = () => waitingEvents > saturatedEvents || waitingBytes > saturatedBytes;

  function laneOf(event: NewEvent): Lane | undefined {
    // The first digits of a random uid spread as well as any hash.
    return lanes[Number.parseInt(event.agentUid.slice(0, 8), 16) % lanes.length];
  }

  function schedule(lane: Lane): void {
    if (isStopped || lane.isScheduled || lane.writing > 0 || lane.waiting.length === 0) return;
    lane.isScheduled = true;
    // After the events that this turn of the loop has read.
    setImmediate(() => {
      lane.isScheduled = false;
      void write(lane, takeGroup(lane));
    });
  }

  function takeGroup(lane: Lane): Waiting[] {
    let bytes = 0;
    let count = 0;
    for (const { event } of lane.waiting) {
      if (count === maxGroupEvents || bytes > maxGroupBytes) break;
      bytes += sizeOf(event);
      count++;
    }
    waitingBytes -= bytes;
    return lane.waiting.splice(0, count);
  }

  async function write(lane: Lane, group: Waiting[]): Promise<void> {
    lane.writing = group.length;
    const outcomes = await writer.write(group.map(({ event }) => event));
    lane.writing = 0;
    waitingEvents -= group.length;
    for (const [index, outcome] of outcomes.entries()) call(() => group[index]?.settled(outcome));
    if (!isSaturated()) for (const resume of resumes.splice(0)) call(resume);
    if (waitingEvents === 0) for (const done of idle.splice(0)) done();
    schedule(lane);
  }

  /** What one link makes of the news must not hurt the others. */
  function call(listener: () => void): void {
    try {
      listener();
    } catch (error) {
      deps.logError(error, 'what became of an event could not be told');
    }
  }

  return {
    push(event, settled) {
      const lane = laneOf(event);
      if (!lane) throw new Error('there is no lane');
      lane.waiting.push({ event, settled });
      waitingEvents++;
      waitingBytes += sizeOf(event);
      schedule(lane);
    },
    get isSaturated() {
      return isSaturated();
    },
    whenDrained(resume) {
      resumes.push(resume);
    },
    get waiting() {
      return waitingEvents;
    },
    async stop(timeoutMs) {
      if (waitingEvents > 0)
        await new Promise<void>((resolve) => {
          const cancel = clock.after(timeoutMs, resolve);
          idle.push(() => {
            cancel();
            resolve();
          });
        });
      isStopped = true;
      writer.stop();
    },
  };
}

function sizeOf(event: NewEvent): number {
  return 512 + (event.payloadText?.length ?? 0);
}
