import { setTimeout as pause } from 'node:timers/promises';
import postgres from 'postgres';
import type { SeededRandom } from '../../src/agent-client/seeded-random.ts';
import type { GatewayProcess } from '../faults/gateway-process.ts';
import { setAhead, startedAhead } from '../faults/process-hooks.ts';
import type { TcpWire } from '../faults/tcp-wire.ts';
import type { Topology } from './topology.ts';

/** Where a fault happens. */
export interface Scene {
  readonly topology: Topology;
  readonly random: SeededRandom;
  /** Tells what was chosen at random. */
  note(text: string): void;
  /** Has what follows the fault go on while everyone recovers. */
  meanwhile(aftermath: Promise<unknown>): void;
}

/** Does the harm; resolves when it is over, from when on everyone has to recover. */
export type Fault = (scene: Scene) => Promise<void>;

/** Longer than the lease. */
const shortSleepMs = 17_000;
const longSleepMs = 30_000;
const sleepMs = process.env.CI ? shortSleepMs : longSleepMs;
/** How soon a load balancer takes out a gateway that does not answer. */
const takenOutAfterMs = 1_500;
const lockedTables = ['agents', 'agent_connections', 'message_queue', 'event_stream', 'events', 'instances'] as const;

/** There are two or three files to write over before that. */
const maxLogSwitches = 8;

const span = (random: SeededRandom, fromMs: number, toMs: number) => pause(random.integer(fromMs, toMs));

function someGateway({ topology: { gateways }, random, note }: Scene): GatewayProcess {
  const index = random.integer(0, gateways.length - 1);
  note(`gateway ${index + 1}`);
  return gateways[index] ?? gateways[0];
}

/** One of the wires, each way as often as the others. */
function someWire({ topology, random, note }: Scene): TcpWire {
  const way = random.pick(['agents', 'consumers', 'postgres', 'redis'] as const);
  const wires = topology.wires[way];
  const index = random.integer(0, wires.length - 1);
  note(`${way} ${index + 1}`);
  return wires[index] ?? topology.wires.agents[0];
}

async function asking(scene: Scene, work: (sql: postgres.Sql) => Promise<unknown>): Promise<void> {
  const sql = postgres(scene.topology.cluster.url, { max: 1, onnotice: () => {} });
  try {
    await work(sql);
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** Each takes the rest of one file of the log, and the next one has to be made. */
async function switchLogs(sql: postgres.Sql): Promise<void> {
  for (let times = 0; times < maxLogSwitches; times++) {
    await sql`select pg_logical_emit_message(true, 'fault matrix', 'fills'), pg_switch_wal()`;
  }
}

async function startAgain(gateway: GatewayProcess, afterMs: number): Promise<void> {
  await pause(afterMs);
  gateway.start();
  await gateway.ready();
}

/** By name, as `FAULT=…` chooses them. */
export const faults: Readonly<Record<string, Fault>> = {
  async 'gateway-killed'(scene) {
    const gateway = someGateway(scene);
    await gateway.end('SIGKILL');
    scene.meanwhile(startAgain(gateway, scene.random.integer(0, 2_000)));
  },

  async 'gateway-asleep'(scene) {
    const { topology } = scene;
    const gateway = someGateway(scene);
    gateway.signal('SIGSTOP');
    await pause(takenOutAfterMs);
    topology.takeOut(gateway);
    await pause(sleepMs - takenOutAfterMs);
    gateway.signal('SIGCONT');
    topology.putBack(gateway);
  },

  async 'postgres-crash'({ topology: { cluster }, random }) {
    await cluster.stop('immediate');
    await span(random, 0, 2_000);
    await cluster.start();
  },

  'backends-terminated': (scene) =>
    asking(scene, async (sql) => {
      for (let times = scene.random.integer(1, 4); times > 0; times--) {
        const share = scene.random.pick([0.3, 1]);
        await sql`
          select pg_terminate_backend(pid) from pg_stat_activity
          where application_name = 'aegis-gateway' and random() < ${share}`;
        await span(scene.random, 0, 500);
      }
    }),

  'table-locked': (scene) =>
    asking(scene, async (sql) => {
      const table = scene.random.pick(lockedTables);
      scene.note(table);
      await sql.begin(async (tx) => {
        await tx`lock table ${tx(table)} in access exclusive mode`;
        await span(scene.random, 1_000, 6_000);
      });
    }),

  /** What cannot be stored any more fails; where the log has no room either, Postgres ends, and cannot start. */
  async 'disk-full'(scene) {
    const { topology, random, note } = scene;
    const { cluster } = topology;
    if (!cluster.disk) throw new Error('Postgres has no disk of its own');
    const isLogFull = random.chance(0.5);
    cluster.disk.fill(random.integer(0, 512 * 1024));
    note(isLogFull ? 'the log, too' : 'tables');
    const filledAtMs = performance.now();
    if (isLogFull) await asking(scene, switchLogs).catch(() => {});
    await pause(random.integer(1_000, 4_000) - (performance.now() - filledAtMs));
    cluster.disk.free();
    await cluster.comeBack();
  },

  /** Somebody sets the clock of a gateway's machine wrong, or it starts with a wrong one; after a while it is set right. */
  async 'clock-off'(scene) {
    const { random, note } = scene;
    const gateway = someGateway(scene);
    const hours = random.pick([1, -1] as const);
    const isStarted = random.chance(0.5);
    note(`${hours} h, ${isStarted ? 'from its start' : 'while it runs'}`);
    if (isStarted) {
      await gateway.end('SIGKILL');
      gateway.start(startedAhead(hours));
      await gateway.ready();
    } else gateway.signal(setAhead(hours));
    await span(random, 4_000, 8_000);
    gateway.signal(setAhead(hours === 1 ? -1 : 1));
  },

  async 'redis-killed'({ topology: { redis }, random }) {
    await redis.signal('SIGKILL');
    await span(random, 0, 3_000);
    await redis.start();
  },

  async 'redis-asleep'({ topology: { redis }, random }) {
    await redis.signal('SIGSTOP');
    await span(random, 1_000, 6_000);
    await redis.signal('SIGCONT');
  },

  async 'redis-flushed'({ topology: { redis } }) {
    await redis.ask('FLUSHALL');
  },

  async latency(scene) {
    const wire = someWire(scene);
    wire.delay(scene.random.integer(50, 400));
    await span(scene.random, 2_000, 5_000);
    wire.delay(0);
  },

  async 'half-open'(scene) {
    const kept = scene.random.pick(['dialling', 'dialled'] as const);
    scene.note(`the ${kept} end stays`);
    someWire(scene).strand(kept);
  },

  async blackhole(scene) {
    const wire = someWire(scene);
    wire.hold();
    await span(scene.random, 2_000, 12_000);
    wire.release();
  },

  async resets(scene) {
    for (let times = scene.random.integer(1, 4); times > 0; times--) {
      someWire(scene).reset();
      await span(scene.random, 0, 500);
    }
  },
};
