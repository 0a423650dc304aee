const firstMs = 250;
const mostMs = 15_000;

/** How long to wait before a worker is started again that failed so often in a row: twice as long each time, a half more or less. */
export function restartDelayMs(failures: number, random: () => number): number {
  return Math.min(mostMs, firstMs * 2 ** failures) * (0.5 + random());
}
