import type { GatewayProcess } from '../faults/gateway-process.ts';
import { collectGarbage } from '../faults/process-hooks.ts';
import type { Topology } from './topology.ts';

/** What a gateway holds, without its connections to Postgres, which it opens when it needs them. */
interface Held {
  readonly descriptors: number;
  readonly timers: number;
  readonly heapMiB: number;
  readonly links: number;
  readonly subscriptions: number;
  readonly postgresConnections: number;
  readonly redisConnections: number;
}

export interface Vitals {
  readonly gateways: readonly Held[];
  /** Redis subscriptions by channel. */
  readonly channels: ReadonlyMap<string, number>;
}

/** Two pools of ten. */
const maxPostgresConnections = 20;
/** A listener's, a log's; and what is under way while it is looked at. */
const slack = { descriptors: 4, timers: 6, heapMiB: 40 };

/** What gateways hold at this moment, by what they tell of themselves, by the wires and by Redis. */
export async function vitalsOf(topology: Topology): Promise<Vitals> {
  const gateways = await Promise.all(topology.gateways.map((gateway, index) => heldBy(topology, gateway, index)));
  return { gateways, channels: await topology.redis.subscriptions() };
}

async function heldBy({ wires, token }: Topology, gateway: GatewayProcess, index: number): Promise<Held> {
  // What it holds by then, and not what it has left to throw away.
  gateway.signal(collectGarbage);
  const answer = await fetch(`${gateway.url}/metrics`, { headers: { authorization: `Bearer ${token}` } });
  if (!answer.ok) throw new Error(`/metrics answered ${answer.status}`);
  const lines = (await answer.text()).split('\n');
  /** The sum over all labels. */
  const metric = (name: string) =>
    lines
      .filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
  const postgresConnections = wires.postgres[index]?.connections ?? 0;
  return {
    postgresConnections,
    descriptors: metric('process_open_fds') - postgresConnections,
    // Each has one, for its lifetime.
    timers: metric('nodejs_active_resources{type="Timeout"}') - postgresConnections,
    heapMiB: metric('nodejs_heap_size_used_bytes') / 2 ** 20,
    links: metric('aegis_links') + metric('aegis_links_unauthenticated') + metric('aegis_upgrades_held'),
    subscriptions: metric('aegis_subscriptions'),
    redisConnections: wires.redis[index]?.connections ?? 0,
  };
}

/** What is held now and was not before, as sentences. */
export function excessOver(before: Vitals, now: Vitals): readonly string[] {
  const ofGateways = now.gateways.flatMap((held, index) => {
    const was = before.gateways[index] ?? held;
    const allowed: Held = {
      descriptors: was.descriptors + slack.descriptors,
      timers: was.timers + slack.timers,
      heapMiB: was.heapMiB + slack.heapMiB,
      links: 0,
      subscriptions: 0,
      postgresConnections: maxPostgresConnections,
      redisConnections: was.redisConnections,
    };
    return (Object.keys(allowed) as (keyof Held)[]).flatMap((what) =>
      held[what] > allowed[what] ? [`gateway ${index + 1}: ${what} ${was[what]}, now ${held[what]}`] : [],
    );
  });
  const channels = new Set([...before.channels.keys(), ...now.channels.keys()]);
  const ofRedis = [...channels].flatMap((channel) => {
    const [was, is] = [before.channels.get(channel) ?? 0, now.channels.get(channel) ?? 0];
    return was === is ? [] : [`${channel}: ${was} subscriptions, now ${is}`];
  });
  return [...ofGateways, ...ofRedis];
}
