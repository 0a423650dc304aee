import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { freePort } from '../faults/free-port.ts';
import { reapAtTheEnd } from '../faults/reaper.ts';
import { eventually } from './eventually.ts';

/** A Redis of the test's own, which it may kill, stop and start as it likes. */
export interface RedisServer {
  readonly port: number;
  /** `redis://127.0.0.1:<port>` */
  readonly url: string;
  /** Asks by `redis-cli`; the answer as it prints it. */
  ask(...command: string[]): Promise<string>;
  /** Resolves when it answers. */
  start(): Promise<void>;
  signal(name: 'SIGSTOP' | 'SIGCONT'): void;
  /** Ends it at once, and resolves when it is gone. */
  kill(): Promise<void>;
  /** Ends it where it runs, and removes its files. */
  drop(): Promise<void>;
}

const run = promisify(execFile);

/** Whether Redis is installed. CI tests with it in any case. */
export function hasRedisServer(): boolean {
  const isInstalled = spawnSync('redis-server', ['--version']).status === 0;
  if (!isInstalled && process.env.CI) throw new Error('redis-server is not installed, and CI tests with the real one');
  return isInstalled;
}

/** Starts a Redis on a free port that keeps nothing; `settings` are lines of its configuration. */
export async function startRedis(settings: (port: number) => readonly string[] = () => []): Promise<RedisServer> {
  const port = await freePort();
  return startServer(port, [], [`port ${port}`, ...settings(port)]);
}

/** Three masters without replicas, joined to a cluster. */
export async function startRedisCluster(): Promise<readonly RedisServer[]> {
  const nodes: RedisServer[] = [];
  for (let count = 0; count < 3; count++) {
    const busPort = await freePort();
    nodes.push(await startRedis(() => ['cluster-enabled yes', `cluster-port ${busPort}`, 'cluster-node-timeout 2000']));
  }
  const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`);
  await run('redis-cli', ['--cluster', 'create', ...addresses, '--cluster-replicas', '0', '--cluster-yes']);
  for (const node of nodes)
    await eventually(async () => (await node.ask('cluster', 'info')).includes('cluster_state:ok'));
  return nodes;
}

/** A master called `fleet`, a replica of it, and a sentinel that watches over them. */
export async function startSentinel(): Promise<{
  readonly master: RedisServer;
  readonly replica: RedisServer;
  readonly sentinel: RedisServer;
}> {
  const master = await startRedis();
  const replica = await startRedis(() => [`replicaof 127.0.0.1 ${master.port}`, 'repl-diskless-sync-delay 0']);
  await eventually(async () => (await replica.ask('info', 'replication')).includes('master_link_status:up'));
  const port = await freePort();
  const sentinel = await startServer(
    port,
    ['--sentinel'],
    [
      `port ${port}`,
      `sentinel monitor fleet 127.0.0.1 ${master.port} 1`,
      'sentinel down-after-milliseconds fleet 500',
      'sentinel failover-timeout fleet 3000',
    ],
  );
  await eventually(async () => (await sentinel.ask('sentinel', 'replicas', 'fleet')).includes(String(replica.port)));
  return { master, replica, sentinel };
}

async function startServer(port: number, flags: readonly string[], lines: readonly string[]): Promise<RedisServer> {
  const folder = mkdtempSync(join(tmpdir(), 'aegis-redis-'));
  const forgetFolder = reapAtTheEnd({ folder });
  const file = join(folder, 'redis.conf');
  writeFileSync(
    file,
    ['bind 127.0.0.1', `dir ${folder}`, ...(flags.length ? [] : ['save ""']), ...lines, ''].join('\n'),
  );
  let running: { readonly child: ChildProcess; readonly gone: Promise<unknown>; readonly forget: () => void } | null =
    null;

  async function ask(...command: string[]): Promise<string> {
    const { stdout } = await run('redis-cli', ['-h', '127.0.0.1', '-p', String(port), ...command], { timeout: 10_000 });
    return stdout.trim();
  }

  async function start(): Promise<void> {
    const child = spawn('redis-server', [file, ...flags], { stdio: 'ignore' });
    if (child.pid === undefined) throw new Error('redis-server could not be started');
    running = { child, gone: once(child, 'exit'), forget: reapAtTheEnd({ process: child.pid, signal: 'SIGKILL' }) };
    await eventually(() =>
      ask('ping').then(
        (answer) => answer === 'PONG',
        () => false,
      ),
    );
  }

  async function kill(): Promise<void> {
    if (!running) return;
    const { child, gone, forget } = running;
    running = null;
    child.kill('SIGKILL');
    await gone;
    forget();
  }

  await start();
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    ask,
    start,
    signal: (name) => void running?.child.kill(name),
    kill,
    async drop() {
      await kill();
      rmSync(folder, { recursive: true, force: true });
      forgetFolder();
    },
  };
}
