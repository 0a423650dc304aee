import { type AgentClock, systemClock } from '../clock.ts';

/** Time as a v2 agent sees it: the wall clock for what it tells, a monotonic one for every span that it measures. */
export interface V2Clock extends AgentClock {
  /** Milliseconds since some moment; never jumps. */
  monotonicMs(): number;
}

/** Timers elsewhere run at once where the delay is more than this. */
const longestDelayMs = 2 ** 31 - 1;

export const systemV2Clock: V2Clock = {
  nowMs: systemClock.nowMs,
  monotonicMs: () => performance.now(),
  schedule: (delayMs, action) => systemClock.schedule(Math.min(delayMs, longestDelayMs), action),
};
