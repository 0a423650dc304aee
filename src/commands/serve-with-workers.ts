import { randomBytes } from 'node:crypto';
import { systemClock } from '../clock.ts';
import type { Config } from '../config.ts';
import { newInstanceId } from '../instance-id.ts';
import { createLog } from '../telemetry/log.ts';
import { createCrew } from '../workers/crew.ts';
import { bindSocket } from '../workers/listening-socket.ts';
import { startWorker } from '../workers/worker.ts';
import { endSignal, stopInTime } from './ending.ts';
import { greeting } from './greeting.ts';

/** What Node's TLS takes: a name and two keys of 16 bytes each. */
const ticketKeysBytes = 48;

/**
 * The primary: holds the port, has `config.workers` processes serve on it, and serves nobody itself. `entry` is the program's
 * file, which each worker loads as it is when the worker begins.
 */
export async function serveWithWorkers(config: Config, entry: string): Promise<number> {
  const startedMs = performance.now();
  const log = createLog(config.logLevel);
  const name = newInstanceId();
  const family = `${name}.`;
  const socket = await bindSocket(config.listenHost, config.listenPort);
  const adminToken = config.adminToken?.generated ? config.adminToken.token : null;
  const ticketKeys = randomBytes(ticketKeysBytes).toString('base64');
  const crew = createCrew({
    ...{ size: config.workers, clock: systemClock, random: Math.random, log: log.child({ instance: name }) },
    launch({ number, generation }, onMessage) {
      const assignment = { number, instanceId: `${family}${generation}`, family, adminToken, ticketKeys };
      return startWorker({ entry, fd: socket.fd, assignment }, onMessage);
    },
  });

  const signalled = endSignal(() => {
    crew.kill();
    process.exit(1);
  });
  process.on('SIGHUP', crew.reload);
  process.on('SIGUSR2', () => void crew.roll());

  const started = await Promise.race([crew.start(), signalled]);
  if (typeof started === 'number') {
    socket.close();
    return started;
  }
  if (started === null)
    process.stdout.write(greeting(config, { name, port: socket.port, tookMs: performance.now() - startedMs }));

  process.stdout.write(`${await signalled}: stopping\n`);
  const isClean = await stopInTime(crew.stop, log, crew.kill);
  socket.close();
  return isClean ? 0 : 1;
}
