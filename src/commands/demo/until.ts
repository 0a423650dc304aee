const pollIntervalMs = 20;

/**
 * Asks again until `check` gives an object or true, and gives that.
 * Throws an Error that names `what` after `timeoutMs`, and the signal's reason once it aborts.
 */
export async function until<Value extends object | true>(
  what: string,
  check: () => Promise<Value | null | false> | Value | null | false,
  options: { readonly timeoutMs: number; readonly signal: AbortSignal },
): Promise<Value> {
  const deadlineMs = performance.now() + options.timeoutMs;
  for (;;) {
    options.signal.throwIfAborted();
    const value = await check();
    if (value) return value;
    if (performance.now() > deadlineMs) throw new Error(`${what}: not within ${options.timeoutMs / 1_000} s`);
    await pause(pollIntervalMs, options.signal);
  }
}

/** Resolves after `durationMs`, or as soon as the signal aborts. */
export function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, durationMs);
    signal.addEventListener('abort', end);
  });
}
