import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Redis } from 'ioredis';
import { freePort } from './free-port.ts';
import { reapAtTheEnd } from './reaper.ts';
import { untilNone } from './until-none.ts';

/** A Redis of the test's own, which it may stop as it likes. It keeps nothing. */
export interface RedisServer {
  readonly port: number;
  /** Resolves when it answers. */
  start(): Promise<void>;
  /** Sends its process a signal; SIGKILL is waited for. */
  signal(name: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT'): Promise<void>;
  /** Asks it one command over a connection of its own. */
  ask(command: string, ...words: readonly string[]): Promise<unknown>;
  /** How many connections are subscribed to each of the gateways' channels. */
  subscriptions(): Promise<ReadonlyMap<string, number>>;
  drop(): Promise<void>;
}

const startTimeoutMs = 10_000;

/** Prepares a server on a free port; nothing runs yet. */
export async function prepareRedisServer(): Promise<RedisServer> {
  const port = await freePort();
  let running: { readonly child: ChildProcess; readonly exited: Promise<unknown>; readonly forget: () => void } | null =
    null;

  async function ask(command: string, ...words: readonly string[]): Promise<unknown> {
    const client = new Redis(port, '127.0.0.1', { lazyConnect: true, retryStrategy: () => null });
    client.on('error', () => {});
    try {
      await client.connect();
      return await client.call(command, ...words);
    } finally {
      client.disconnect();
    }
  }

  const server: RedisServer = {
    port,
    async start() {
      const child = spawn('redis-server', ['--bind', '127.0.0.1', '--port', String(port), '--save', ''], {
        cwd: '/',
        stdio: 'ignore',
      });
      const exited = once(child, 'exit');
      if (child.pid === undefined) throw new Error('redis-server could not be started');
      running = { child, exited, forget: reapAtTheEnd({ process: child.pid, signal: 'SIGKILL' }) };
      await untilNone(() => ask('PING').then(() => []), startTimeoutMs);
    },
    async signal(name) {
      if (!running) throw new Error('no Redis runs');
      const { child, exited, forget } = running;
      child.kill(name);
      if (name !== 'SIGKILL') return;
      await exited;
      forget();
      running = null;
    },
    ask,
    async subscriptions() {
      const channels = await ask('PUBSUB', 'CHANNELS', 'aegis:*');
      if (!Array.isArray(channels)) return new Map();
      const counts = await ask('PUBSUB', 'NUMSUB', ...channels.map(String));
      if (!Array.isArray(counts)) return new Map();
      return new Map(channels.map((channel, index) => [String(channel), Number(counts[2 * index + 1])]));
    },
    async drop() {
      if (running) await server.signal('SIGKILL');
    },
  };
  return server;
}
