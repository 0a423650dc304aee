import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import postgres from 'postgres';
import type { BenchDatabases } from './database.ts';
import type { Target } from './load/protocol.ts';
import { processorSeconds, projectRoot, startProgram } from './processes.ts';

/** What a stretch of work has cost everybody: processor time in seconds, and what was written. */
export interface Cost {
  readonly gateways: number;
  readonly postgres: number;
  readonly redis: number;
  readonly walBytes: number;
  readonly publishes: number;
}

/** Gateways on one database, with a Redis of their own between them or without. */
export interface InstanceGroup {
  readonly targets: readonly Target[];
  /** What everybody has used since the start. Of Postgres, all of its processes: nothing else may use it meanwhile. */
  usage(): Promise<Cost>;
  stop(): Promise<void>;
}

const startTimeoutMs = 60_000;

export async function startGroup(
  databases: BenchDatabases,
  { instances, withRedis }: { readonly instances: number; readonly withRedis: boolean },
): Promise<InstanceGroup> {
  const stops: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (const step of stops.splice(0).reverse()) await step();
  };
  try {
    const database = await databases.create();
    stops.push(database.drop);
    if (database.url === null) throw new Error('several gateways need a Postgres');
    const dataDir = await mkdtemp(join(tmpdir(), 'aegis-bench-'));
    stops.push(() => rm(dataDir, { recursive: true, force: true }));
    const sql = postgres(database.url, { max: 1, onnotice: () => {} });
    stops.push(() => sql.end());
    const redis = withRedis ? await startRedis() : null;
    if (redis) stops.push(redis.stop);
    const token = randomBytes(24).toString('base64url');
    const pids: number[] = [];
    const targets: Target[] = [];
    for (let count = 0; count < instances; count++) {
      const program = await startProgram(process.execPath, [join(projectRoot, 'dist/main.js')], {
        NODE_ENV: 'production',
        WEBSOCKET_PORT: '0',
        DATA_DIR: dataDir,
        ADMIN_TOKEN: token,
        AGENT_ENROLLMENT: 'open',
        DATABASE_URL: database.url,
        ...(redis ? { REDIS_URL: redis.url } : {}),
      });
      stops.push(program.stop);
      pids.push(program.pid);
      const [, host] = await program.line(/Agents +ws:\/\/([^/]+)/, startTimeoutMs);
      targets.push({
        agentUrl: `ws://${host}/ws/agent`,
        subscriberUrl: `ws://${host}/graphql`,
        graphqlToken: token,
        commandUrl: `http://${host}/graphql`,
      });
    }
    return {
      targets,
      async usage() {
        const [wal] = await sql<{ bytes: string }[]>`select (pg_current_wal_insert_lsn() - '0/0')::text as bytes`;
        const backends = await sql<{ pid: number }[]>`select pid from pg_stat_activity`;
        return {
          gateways: sum(pids.map(processorSeconds)),
          postgres: sum(backends.map(({ pid }) => processorSeconds(pid))),
          redis: redis ? processorSeconds(redis.pid) : 0,
          walBytes: Number(wal?.bytes),
          publishes: redis ? await redis.publishes() : 0,
        };
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

export function costBetween(before: Cost, after: Cost): Cost {
  return {
    gateways: after.gateways - before.gateways,
    postgres: after.postgres - before.postgres,
    redis: after.redis - before.redis,
    walBytes: after.walBytes - before.walBytes,
    publishes: after.publishes - before.publishes,
  };
}

/** A Redis that keeps nothing. */
export async function startRedis() {
  const port = await freePort();
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--loglevel', 'notice'];
  const program = await startProgram('redis-server', args);
  await program.line(/Ready to accept connections/, startTimeoutMs);
  const client = new Redis(port, '127.0.0.1');
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    pid: program.pid,
    async publishes() {
      return Number(/cmdstat_publish:calls=(\d+)/.exec(await client.info('commandstats'))?.[1] ?? 0);
    },
    async stop() {
      client.disconnect();
      await program.stop();
    },
  };
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
