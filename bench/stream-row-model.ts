import { quantile } from './statistics.ts';

/** Milliseconds for a group: some for itself, and some for each of its events. */
export interface Line {
  readonly base: number;
  readonly slope: number;
}

export interface GroupCost {
  /** From the question to the commit, where nobody else writes. */
  readonly whole: Line;
  /** Of that, what no other group can do meanwhile: from the update of the row to the commit, and the processors' share. */
  readonly held: Line;
}

export interface Fleet {
  readonly gateways: number;
  /** Events of the whole fleet, at random moments. */
  readonly perSecond: number;
  readonly lanes: number;
  readonly maxGroup: number;
  readonly seconds: number;
}

export interface Outcome {
  readonly perSecond: number;
  readonly meanGroup: number;
  /** Of the row. */
  readonly busyShare: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly isStable: boolean;
}

/** The line with the least squared relative error, so that small groups count as much as large ones. */
export function fitLine(points: readonly (readonly [number, number])[]): Line {
  let [w, wx, wxx, wy, wxy] = [0, 0, 0, 0, 0];
  for (const [x, y] of points) {
    const weight = 1 / y ** 2;
    w += weight;
    wx += weight * x;
    wxx += weight * x * x;
    wy += weight * y;
    wxy += weight * x * y;
  }
  const slope = Math.max(0, (w * wxy - wx * wy) / (w * wxx - wx ** 2));
  return { base: (wy - slope * wx) / w, slope };
}

/** What each gateway's lanes have to write: what comes while a lane's group is under way gathers in it. */
function createLanes(cost: GroupCost, count: number, maxGroup: number) {
  const waiting = Array.from({ length: count }, (): number[] => []);
  const groups = waiting.map((): number[] => []);
  /** When each lane's group asks for the row; infinite where none is under way. */
  const asksMs = waiting.map(() => Number.POSITIVE_INFINITY);
  const besideMs = (size: number) => timeOf(cost.whole, size) - timeOf(cost.held, size);

  /** A group is made of what waits, and first does what it can do beside the others. */
  function begin(lane: number, nowMs: number): void {
    const group = waiting[lane]?.splice(0, maxGroup) ?? [];
    groups[lane] = group;
    asksMs[lane] = group.length === 0 ? Number.POSITIVE_INFINITY : nowMs + Math.max(0, besideMs(group.length));
  }

  return {
    begin,
    arrive(lane: number, nowMs: number): void {
      waiting[lane]?.push(nowMs);
      if (groups[lane]?.length === 0) begin(lane, nowMs);
    },
    /** The lane that asks for the row first, and when. */
    first(): { readonly lane: number; readonly atMs: number } {
      const atMs = Math.min(...asksMs);
      return { lane: Math.max(0, asksMs.indexOf(atMs)), atMs };
    },
    groupOf: (lane: number): readonly number[] => groups[lane] ?? [],
    get left() {
      return waiting.reduce((sum, events) => sum + events.length, 0);
    },
  };
}

/**
 * Lanes that hold one row in turn. Events come at random moments, of a seed, to random lanes; each is stored when its group has
 * held the row.
 */
export function simulate(cost: GroupCost, { gateways, perSecond, lanes: each, maxGroup, seconds }: Fleet): Outcome {
  const random = seeded(1);
  const gapMs = () => (-Math.log(1 - random()) * 1_000) / perSecond;
  const endMs = seconds * 1_000;
  const lanes = createLanes(cost, gateways * each, maxGroup);
  const delaysMs: number[] = [];
  let holder: number | null = null;
  let [rowFreeMs, busyMs, groupCount] = [0, 0, 0];
  let arrivalMs = gapMs();
  for (;;) {
    const next: { readonly lane: number; readonly atMs: number } =
      holder === null ? lanes.first() : { lane: holder, atMs: rowFreeMs };
    if (Math.min(arrivalMs, next.atMs) > endMs) break;
    const group = lanes.groupOf(next.lane);
    if (arrivalMs <= next.atMs) {
      lanes.arrive(Math.floor(random() * gateways * each), arrivalMs);
      arrivalMs += gapMs();
    } else if (holder === null) {
      holder = next.lane;
      const heldMs = timeOf(cost.held, group.length);
      rowFreeMs = Math.max(next.atMs, rowFreeMs) + heldMs;
      busyMs += heldMs;
    } else {
      for (const arrivedMs of group) delaysMs.push(rowFreeMs - arrivedMs);
      groupCount++;
      holder = null;
      lanes.begin(next.lane, rowFreeMs);
    }
  }
  return {
    perSecond: delaysMs.length / seconds,
    meanGroup: delaysMs.length / groupCount,
    busyShare: Math.min(1, busyMs / endMs),
    p50Ms: quantile(delaysMs, 0.5),
    p99Ms: quantile(delaysMs, 0.99),
    isStable: lanes.left < perSecond,
  };
}

function timeOf({ base, slope }: Line, events: number): number {
  return base + slope * events;
}

/** Numbers from 0 to 1 (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
