/** Asks again until `check` gives something that is not null, undefined or false, and gives that. Throws after `timeoutMs`. */
export async function eventually<Value>(
  check: () => Promise<Value | null | undefined | false> | Value | null | undefined | false,
  timeoutMs = 20_000,
): Promise<Value> {
  const deadlineMs = Date.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value !== null && value !== undefined && value !== false) return value;
    if (Date.now() > deadlineMs) throw new Error(`still not so after ${timeoutMs} ms: ${check}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
