import { type Clock, repeat } from '../clock.ts';
import { type EventKind, eventKinds } from './event.ts';
import type { StreamHours } from './hours.ts';
import type { Partition, PartitionFamily, Partitions } from './partitions.ts';

/** Sees to it that there are partitions for what comes, and that those past their retention go. */
export interface Retention {
  /** Resolves when there are partitions for what comes. Throws where there are none and none can be made. */
  start(): Promise<void>;
  stop(): void;
}

const hourMs = 3_600_000;
const intervalMs = 60_000;
/** So long, at the least, an event that comes again is known for one; see docs/EVENTS.md. */
const idsKeptMs = 24 * hourMs;
/** Every new id is looked up in each partition of old ones, so these must be few: this and the one before. */
const idsWidthHours = 24;
/** Of kinds of another version, which drops them itself. */
const foreignWidthHours = 24;
/** What is dropped is past its retention by an eighth of it at the most; planning pays for more partitions. */
const partitionsEach = 8;

export function createRetention(deps: {
  readonly partitions: Partitions;
  readonly hours: StreamHours;
  readonly clock: Clock;
  /** What this machine's clock shows; of it and the database's the earlier one counts, for what is dropped is gone. */
  readonly machineMs: () => number;
  readonly retentionMs: ReadonlyMap<EventKind, number>;
  readonly logError: (error: unknown, context: string) => void;
}): Retention {
  const { partitions, hours, clock, machineMs } = deps;
  let stopRepeating = () => {};

  function keptMs({ kind }: PartitionFamily): number | null {
    const known = eventKinds.find((candidate) => candidate === kind);
    return kind === null ? idsKeptMs : known === undefined ? null : (deps.retentionMs.get(known) ?? null);
  }

  function widthHours(family: PartitionFamily): number {
    const kept = keptMs(family);
    if (family.kind === null) return idsWidthHours;
    return kept === null ? foreignWidthHours : Math.max(1, Math.floor(kept / partitionsEach / hourMs));
  }

  /** Has events stored in an hour once there are partitions for it. */
  async function turnTo(nextHour: number, nowMs: number, families: readonly PartitionFamily[]): Promise<void> {
    for (const family of families) {
      if (family.partitions.some((partition) => holds(partition, nextHour))) continue;
      const width = widthHours(family);
      const start = Math.floor(nextHour / width) * width;
      // Partitions of another width may stand there already.
      const before = family.partitions.findLast(({ until }) => until <= nextHour);
      const behind = family.partitions.find(({ from }) => from > nextHour);
      const from = Math.max(start, before?.until ?? 0);
      const until = Math.min(start + width, behind?.from ?? Number.POSITIVE_INFINITY);
      await partitions.make({ family: family.name, from, until });
    }
    await partitions.turnTo(nextHour, nowMs);
  }

  async function dropPast(families: readonly PartitionFamily[], hour: number, nowMs: number): Promise<void> {
    for (const family of families) {
      const kept = keptMs(family);
      for (const partition of family.partitions) {
        const endedAtMs = hours.beganAtMs(partition.until);
        if (kept === null || partition.until > hour || endedAtMs === null || endedAtMs > nowMs - kept) continue;
        await partitions.drop(partition, family.kind);
      }
    }
    const oldest = families.flatMap((family) => family.partitions.map(({ from }) => from));
    await hours.forgetBefore(Math.min(hour, ...oldest));
  }

  async function maintain(): Promise<void> {
    await hours.learn();
    const { hour, nowMs, families } = await partitions.look(machineMs());
    const nextHour = Math.floor(nowMs / hourMs);
    if (nextHour > hour || !canStore(hour, families)) await turnTo(Math.max(hour, nextHour), nowMs, families);
    await dropPast(families, hour, nowMs);
  }

  const report = (error: unknown) => deps.logError(error, 'the partitions of events could not be seen to');

  return {
    async start() {
      await maintain().catch(report);
      const { hour, families } = await partitions.look(machineMs());
      if (!canStore(hour, families)) throw new Error('There are no partitions for events, and none could be made');
      await hours.learn();
      stopRepeating = repeat(clock, intervalMs, maintain, report);
    },
    stop: () => stopRepeating(),
  };
}

function canStore(hour: number, families: readonly PartitionFamily[]): boolean {
  return families.every(({ partitions }) => partitions.some((partition) => holds(partition, hour)));
}

function holds({ from, until }: Partition, hour: number): boolean {
  return from <= hour && hour < until;
}
