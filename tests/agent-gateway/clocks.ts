import { type Clock, systemClock } from '../../src/clock.ts';

/** A clock that shows another time and runs as fast as the machine's. */
export function clockFrom(startMs: number): Clock {
  const shiftMs = startMs - Date.now();
  return { ...systemClock, now: () => Date.now() + shiftMs };
}

/** A clock that stands still until it is told to go on. Timers run in the order in which they fall due. */
export class SteppedClock implements Clock {
  readonly #timers = new Set<{ dueMs: number; readonly intervalMs: number | null; readonly task: () => void }>();
  #nowMs: number;

  constructor(startMs = Date.now()) {
    this.#nowMs = startMs;
  }

  now(): number {
    return this.#nowMs;
  }

  after(delayMs: number, task: () => void): () => void {
    return this.#add(delayMs, null, task);
  }

  every(intervalMs: number, task: () => void): () => void {
    return this.#add(intervalMs, intervalMs, task);
  }

  /** Time passes, and whoever waits for it is not called: the process was held up. */
  stall(byMs: number): void {
    this.#nowMs += byMs;
  }

  advance(byMs: number): void {
    const endMs = this.#nowMs + byMs;
    for (;;) {
      const [next] = [...this.#timers].filter(({ dueMs }) => dueMs <= endMs).sort((one, two) => one.dueMs - two.dueMs);
      if (!next) break;
      this.#nowMs = Math.max(this.#nowMs, next.dueMs);
      if (next.intervalMs === null) this.#timers.delete(next);
      else next.dueMs += next.intervalMs;
      next.task();
    }
    this.#nowMs = endMs;
  }

  #add(delayMs: number, intervalMs: number | null, task: () => void): () => void {
    const timer = { dueMs: this.#nowMs + delayMs, intervalMs, task };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }
}
