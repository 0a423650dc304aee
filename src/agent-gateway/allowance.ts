import type { Clock } from '../clock.ts';

/** What one agent may send in the long run. */
export interface AllowanceLimits {
  readonly framesPerSecond: number;
  readonly bytesPerSecond: number;
}

/** What is left of it: a token bucket of frames and one of bytes. */
export interface Allowance {
  tookFrames(count: number): void;
  tookBytes(count: number): void;
  /** How long the agent must wait until nothing is overdrawn; 0 where nothing is. */
  readonly overdrawnMs: number;
}

/** The allowances of agents, whichever link they send over: a new link brings no new one. */
export interface Allowances {
  /** By name, the allowance of those who have sent lately, else a full one. */
  of(name: string): Allowance;
}

/** So much may be saved up. */
const burstSeconds = 5;
/** What was read in one go may overdraw a small allowance by far; no agent waits longer, for its pings are not read either. */
const maxOverdrawnSeconds = 10;
const leastBuckets = 1_000;

interface Bucket {
  take(count: number): void;
  readonly overdrawnMs: number;
  readonly isFull: boolean;
}

export function createAllowances(clock: Clock, limits: AllowanceLimits): Allowances {
  const buckets = new Map<string, Allowance & { readonly isFull: boolean }>();
  let forgetAt = leastBuckets;

  /** A full one says nothing. */
  function forget(): void {
    for (const [name, { isFull }] of buckets) if (isFull) buckets.delete(name);
    forgetAt = Math.max(leastBuckets, 2 * buckets.size);
  }

  function create(): Allowance & { readonly isFull: boolean } {
    const frames = createBucket(clock, limits.framesPerSecond);
    const bytes = createBucket(clock, limits.bytesPerSecond);
    return {
      tookFrames: frames.take,
      tookBytes: bytes.take,
      get overdrawnMs() {
        return Math.max(frames.overdrawnMs, bytes.overdrawnMs);
      },
      get isFull() {
        return frames.isFull && bytes.isFull;
      },
    };
  }

  return {
    of(name) {
      const found = buckets.get(name);
      if (found) return found;
      if (buckets.size >= forgetAt) forget();
      const made = create();
      buckets.set(name, made);
      return made;
    },
  };
}

function createBucket(clock: Clock, perSecond: number): Bucket {
  const burst = perSecond * burstSeconds;
  let left = burst;
  let reckonedAtMs = clock.now();

  function reckon(): number {
    const nowMs = clock.now();
    // A clock that was set back gives nothing.
    left = Math.min(burst, left + (Math.max(0, nowMs - reckonedAtMs) * perSecond) / 1_000);
    reckonedAtMs = nowMs;
    return left;
  }

  return {
    take(count) {
      left = Math.max(-perSecond * maxOverdrawnSeconds, reckon() - count);
    },
    get overdrawnMs() {
      return Math.max(0, (-reckon() * 1_000) / perSecond);
    },
    get isFull() {
      return reckon() >= burst;
    },
  };
}
