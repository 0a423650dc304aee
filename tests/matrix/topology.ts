import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SeededRandom } from '../../src/agent-client/seeded-random.ts';
import { type GatewayProcess, prepareGateway } from '../faults/gateway-process.ts';
import { createPostgresCluster, type PostgresCluster } from '../faults/postgres-cluster.ts';
import { hookArguments } from '../faults/process-hooks.ts';
import { reapAtTheEnd } from '../faults/reaper.ts';
import { prepareRedisServer, type RedisServer } from '../faults/redis-server.ts';
import { startTcpWire, type TcpWire } from '../faults/tcp-wire.ts';

/**
 * Gateways with a Postgres and a Redis of their own, and a wire on each way: one for each gateway to either, and one for all
 * agents and one for all consumers, which spread them as a load balancer does and have them wait where no gateway answers.
 */
export interface Topology {
  readonly cluster: PostgresCluster;
  readonly redis: RedisServer;
  readonly gateways: readonly [GatewayProcess, ...GatewayProcess[]];
  readonly wires: {
    readonly agents: readonly [TcpWire];
    readonly consumers: readonly [TcpWire];
    /** By gateway. */
    readonly postgres: readonly TcpWire[];
    readonly redis: readonly TcpWire[];
  };
  /** Where consumers dial. */
  readonly url: string;
  /** Where agents dial. */
  readonly agentUrl: string;
  readonly token: string;
  /** Gateways that are up and not taken out. */
  serving(): readonly GatewayProcess[];
  /** Sends nobody to this gateway any more, as a load balancer whose health checks fail; connections stay. */
  takeOut(gateway: GatewayProcess): void;
  putBack(gateway: GatewayProcess): void;
  stop(): Promise<void>;
}

const gatewayCount = 2;
/** Several times what a seed stores. */
const diskMiB = 1_024;

/** Postgres is on a disk of its own where `canMount`. */
export async function startTopology(random: SeededRandom, canMount: boolean): Promise<Topology> {
  const releases: (() => Promise<unknown> | unknown)[] = [];
  const release = async () => {
    for (const step of releases.splice(0).reverse()) await step();
  };
  const owned = async <Part>(part: Promise<Part>, letGo: (part: Part) => Promise<unknown>): Promise<Part> => {
    const made = await part;
    releases.push(() => letGo(made));
    return made;
  };
  try {
    const cluster = await owned(createPostgresCluster(canMount ? { diskMiB } : {}), (made) => made.drop());
    const redis = await owned(prepareRedisServer(), (made) => made.drop());
    await redis.start();
    const folder = mkdtempSync(join(tmpdir(), 'aegis-matrix-'));
    const forgetFolder = reapAtTheEnd({ folder });
    releases.push(() => {
      rmSync(folder, { recursive: true, force: true });
      forgetFolder();
    });
    const token = randomBytes(16).toString('hex');
    const out = new Set<GatewayProcess>();
    const wire = (targets: () => readonly number[], whenNoneAnswers: 'refuse' | 'wait') =>
      owned(startTcpWire({ targets, whenNoneAnswers }), (made) => made.close());

    async function addGateway() {
      const postgres = await wire(() => [cluster.port], 'refuse');
      const redisWire = await wire(() => [redis.port], 'refuse');
      const gateway = await owned(
        prepareGateway(
          {
            ...{ DATABASE_URL: `postgres://postgres@127.0.0.1:${postgres.port}/postgres`, ADMIN_TOKEN: token },
            ...{ REDIS_URL: `redis://127.0.0.1:${redisWire.port}`, MESSAGE_TTL: '10s', MESSAGE_RETRY_ATTEMPTS: '4' },
            // The same keys for all.
            DATA_DIR: folder,
          },
          hookArguments,
        ),
        (made) => made.drop(),
      );
      // One after the other: the first one makes the keys and migrates.
      gateway.start();
      await gateway.ready();
      return { gateway, postgres, redis: redisWire };
    }

    const first = await addGateway();
    const others = [];
    while (others.length < gatewayCount - 1) others.push(await addGateway());
    const parts = [first, ...others];
    const gateways = [first.gateway, ...others.map(({ gateway }) => gateway)] as const;
    const balanced = () => {
      const ports = gateways.filter((gateway) => !out.has(gateway)).map(({ port }) => port);
      const turn = random.integer(0, ports.length);
      return [...ports.slice(turn), ...ports.slice(0, turn)];
    };
    const agents = await wire(balanced, 'wait');
    const consumers = await wire(balanced, 'wait');
    return {
      ...{ cluster, redis, gateways, token },
      wires: {
        agents: [agents],
        consumers: [consumers],
        postgres: parts.map(({ postgres }) => postgres),
        redis: parts.map((part) => part.redis),
      },
      url: `http://127.0.0.1:${consumers.port}`,
      agentUrl: `ws://127.0.0.1:${agents.port}/ws/agent`,
      serving: () => gateways.filter((gateway) => gateway.instanceId !== null && !out.has(gateway)),
      takeOut: (gateway) => void out.add(gateway),
      putBack: (gateway) => void out.delete(gateway),
      stop: release,
    };
  } catch (error) {
    await release();
    throw error;
  }
}
