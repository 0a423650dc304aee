import type { Logger } from '../telemetry/log.ts';

/** After this a stop that hangs is cut short. */
const stopTimeoutMs = 9_500;
const endSignals = ['SIGTERM', 'SIGINT'] as const;

/** The first SIGTERM or SIGINT from now on; `again` is called at each further one. */
export function endSignal(again: () => void): Promise<string> {
  return new Promise((resolve) => {
    let isFirst = true;
    for (const name of endSignals)
      process.on(name, () => {
        if (!isFirst) again();
        isFirst = false;
        resolve(name);
      });
  });
}

/** Waits for `stop`, and where that takes too long calls `cut` and ends the process with 1. */
export async function stopInTime<Result>(
  stop: () => Promise<Result>,
  log: Logger,
  cut: () => void = () => {},
): Promise<Result> {
  const timer = setTimeout(() => {
    log.fatal('the stop took too long and was cut short');
    cut();
    process.exit(1);
  }, stopTimeoutMs);
  const result = await stop();
  clearTimeout(timer);
  return result;
}
