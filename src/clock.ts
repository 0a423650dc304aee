/** Time, injected so that tests own it. */
export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
  /** Calls `task` once after `delayMs`; the returned function takes it back. */
  after(delayMs: number, task: () => void): () => void;
  /** Calls `task` every `intervalMs`; the returned function ends it. */
  every(intervalMs: number, task: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  after(delayMs, task) {
    const timer = setTimeout(task, delayMs);
    return () => clearTimeout(timer);
  },
  every(intervalMs, task) {
    const timer = setInterval(task, intervalMs);
    return () => clearInterval(timer);
  },
};

/** Repeats a task, `intervalMs` after it began, never twice at once; what it throws goes to `onError`. Returns what ends it. */
export function repeat(
  clock: Clock,
  intervalMs: number,
  task: () => Promise<unknown>,
  onError: (error: unknown) => void,
): () => void {
  let running = false;
  return clock.every(intervalMs, () => {
    if (running) return;
    running = true;
    task()
      .catch(onError)
      .finally(() => {
        running = false;
      });
  });
}
