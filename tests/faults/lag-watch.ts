import { type Hold, preciseNowMs } from './history.ts';

/** Notes when this process, in which agents and wires live, had no time to read what had come. */
export interface LagWatch {
  readonly holds: readonly Hold[];
  stop(): void;
}

const lookIntervalMs = 50;
const noticedMs = 150;

export function watchLag(): LagWatch {
  const holds: Hold[] = [];
  let lastMs = preciseNowMs();
  const timer = setInterval(() => {
    const nowMs = preciseNowMs();
    if (nowMs - lastMs > noticedMs) holds.push({ fromMs: lastMs, untilMs: nowMs });
    lastMs = nowMs;
  }, lookIntervalMs);
  return { holds, stop: () => clearInterval(timer) };
}
