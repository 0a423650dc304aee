/** Time, injected so that tests own it. */
export interface Clock {
  /**
   * Milliseconds since 1970. By the system's clock it is what the machine's showed when the process began and the time that has
   * passed since, whoever sets that meanwhile: what lasts is measured by it. What time it is, `wall-clock.ts` tells.
   */
  now(): number;
  /** Calls `task` once after `delayMs`; the returned function takes it back. */
  after(delayMs: number, task: () => void): () => void;
  /** Calls `task` every `intervalMs`; the returned function ends it. */
  every(intervalMs: number, task: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => Math.floor(performance.timeOrigin + performance.now()),
  after(delayMs, task) {
    const timer = setTimeout(task, delayMs);
    return () => clearTimeout(timer);
  },
  every(intervalMs, task) {
    const timer = setInterval(task, intervalMs);
    return () => clearInterval(timer);
  },
};

/** A task that is done again and again. */
export interface Poll {
  /** Has it done at once; once more after the one under way, which may have begun too early. */
  now(): void;
  stop(): void;
}

/** Repeats a task, `intervalMs` after it began, never twice at once; what it throws goes to `onError`. */
export function poll(
  clock: Clock,
  intervalMs: number,
  task: () => Promise<unknown>,
  onError: (error: unknown) => void,
): Poll {
  let isRunning = false;
  let isWanted = false;
  let isStopped = false;

  function run(): void {
    if (isRunning) return;
    isRunning = true;
    isWanted = false;
    task()
      .catch(onError)
      .finally(() => {
        isRunning = false;
        if (isWanted && !isStopped) run();
      });
  }

  const stopRepeating = clock.every(intervalMs, run);
  return {
    now() {
      if (isStopped) return;
      isWanted = true;
      run();
    },
    stop() {
      isStopped = true;
      stopRepeating();
    },
  };
}

/** A poll that nobody hurries; returns what ends it. */
export function repeat(
  clock: Clock,
  intervalMs: number,
  task: () => Promise<unknown>,
  onError: (error: unknown) => void,
): () => void {
  return poll(clock, intervalMs, task, onError).stop;
}
