import type { Clock } from './clock.ts';

/**
 * What time it is, where others must agree: agents and tokens are judged by it, and what is stored is dated by it. It is the
 * machine's own clock unless that is far from the database's, which all gateways share. Only `now` differs from the clock
 * that it is made of.
 */
export interface WallClock extends Clock {
  /** Tells what the database's clock showed at some moment between two moments of `performance.now()`. */
  compare(databaseMs: number, askedAtMs: number, answeredAtMs: number): void;
  /** What the machine's own clock shows, right or wrong. */
  machineMs(): number;
  /** How far the machine's clock is ahead of the database's; null until they have been compared. */
  readonly aheadMs: number | null;
  /** Whether it is the database's time by now. */
  readonly isCorrected: boolean;
}

/** What `performance.now()` has to be added to, and how wrong that may be. */
interface Comparison {
  readonly originMs: number;
  readonly errorMs: number;
}

/** No agent and no token is judged to the second, and who looks at two clocks that agree should not see them jump. */
const usuallyToleratedMs = 5_000;

export function createWallClock(
  clock: Clock,
  deps: {
    /** Called when the database's time begins to count, and when the machine's own does again. */
    readonly onCorrected?: (isCorrected: boolean, aheadMs: number) => void;
    /** The machine's own clock, which somebody may set at any moment. */
    readonly machineMs?: () => number;
    readonly monotonicMs?: () => number;
    readonly toleratedMs?: number;
  } = {},
): WallClock {
  const { machineMs = () => Date.now(), monotonicMs = () => performance.now() } = deps;
  const { toleratedMs = usuallyToleratedMs } = deps;
  let compared: Comparison | null = null;
  let wasCorrected = false;

  const databaseMs = () => (compared ? compared.originMs + monotonicMs() : null);

  function aheadMs(): number | null {
    const otherMs = databaseMs();
    return otherMs === null ? null : machineMs() - otherMs;
  }

  /** The database's time where the machine's is far from it: found at each look, so that a clock that is set does no harm. */
  function correctedMs(): number | null {
    const offMs = Math.abs(aheadMs() ?? 0);
    return compared && offMs > toleratedMs + compared.errorMs ? databaseMs() : null;
  }

  return {
    after: (delayMs, task) => clock.after(delayMs, task),
    every: (intervalMs, task) => clock.every(intervalMs, task),
    now: () => Math.floor(correctedMs() ?? machineMs()),
    compare(shownMs, askedAtMs, answeredAtMs) {
      const errorMs = (answeredAtMs - askedAtMs) / 2;
      compared = { originMs: shownMs - (askedAtMs + errorMs), errorMs };
      const isCorrected = correctedMs() !== null;
      if (isCorrected !== wasCorrected) deps.onCorrected?.(isCorrected, aheadMs() ?? 0);
      wasCorrected = isCorrected;
    },
    machineMs,
    get aheadMs() {
      return aheadMs();
    },
    get isCorrected() {
      return correctedMs() !== null;
    },
  };
}
