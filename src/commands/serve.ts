import type { Config } from '../config.ts';
import { type Gateway, startGateway } from '../gateway.ts';
import { createLog } from '../telemetry/log.ts';
import { endSignal, stopInTime } from './ending.ts';
import { greeting } from './greeting.ts';

/**
 * Runs the gateway in this process until SIGTERM or SIGINT; a second one ends it at once. SIGHUP reloads certificates and keys and
 * does nothing else.
 */
export async function serve(config: Config): Promise<number> {
  const startedMs = performance.now();
  const log = createLog(config.logLevel);
  // Before the start: a signal that comes meanwhile must not end the process with a database half open.
  const signalled = endSignal(() => process.exit(1));
  let running: Gateway | null = null;
  process.on('SIGHUP', () => running?.reload());
  process.on('SIGUSR2', () =>
    log.warn('SIGUSR2 does nothing: there are workers to replace only where WORKERS is 2 or more'),
  );
  const gateway = await startGateway(config, log);
  running = gateway;
  const { instanceId: name, port } = gateway;
  process.stdout.write(greeting(config, { name, port, tookMs: performance.now() - startedMs }));

  process.stdout.write(`${await signalled}: stopping\n`);
  await stopInTime(() => gateway.stop(), log);
  return 0;
}
