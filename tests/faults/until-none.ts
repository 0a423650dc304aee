import { setTimeout as pause } from 'node:timers/promises';

/** Asks again until `check` gives no sentence any more. Throws those that are left after `timeoutMs`. */
export async function untilNone(
  check: () => Promise<readonly string[]> | readonly string[],
  timeoutMs: number,
): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    const left = await Promise.resolve()
      .then(check)
      .catch((error: unknown) => [String(error)]);
    if (left.length === 0) return;
    if (performance.now() > deadlineMs)
      throw new Error(`still after ${timeoutMs} ms:\n${left.slice(0, 20).join('\n')}`);
    await pause(50);
  }
}
