import type { Config } from '../config.ts';
import { startGateway } from '../gateway.ts';
import { createLog } from '../telemetry/log.ts';
import { meetPrimary } from '../workers/siblings.ts';
import { endSignal, stopInTime } from './ending.ts';

/** One of several processes that serve on one port, as its primary began it. The primary tells it when to end. */
export async function work(config: Config): Promise<number> {
  // Whoever signals all processes of the group signals the primary as well, which knows what is to be done.
  for (const name of ['SIGHUP', 'SIGUSR2'] as const) process.on(name, () => {});
  const primary = await meetPrimary();
  if (!primary) {
    process.stderr.write('A worker is begun by `serve` with WORKERS above 1, and by nobody else\n');
    return 2;
  }
  void endSignal(() => process.exit(1)).then(primary.wantsToLeave);
  const { siblings } = primary;
  const log = createLog(config.logLevel);
  const { adminToken } = siblings.assignment;
  const token = adminToken === null ? config.adminToken : { token: adminToken, generated: true };
  const gateway = await startGateway({ ...config, adminToken: token }, log, { siblings });
  primary.onReload(gateway.reload);
  primary.serves();

  const ending = await primary.ending;
  if (ending === 'orphaned') log.fatal('the primary is gone: this worker ends');
  // An orphan leaves the port at once as well: who begins the gateway anew needs it.
  await stopInTime(() => gateway.stop({ successors: ending !== 'stop' }), log);
  primary.leave();
  return ending === 'orphaned' ? 1 : 0;
}
