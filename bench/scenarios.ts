import { setTimeout as pause } from 'node:timers/promises';
import { commandScenarios } from './command-scenarios.ts';
import { connect, type Generator, withGenerator } from './generator.ts';
import { connected, connectedOneByOne, type Delivered, delivered, weathered } from './load/protocol.ts';
import type { ScenarioName } from './options.ts';
import { processorSeconds, residentKib } from './processes.ts';
import type { Scenario } from './scenario.ts';
import type { Server } from './servers.ts';
import { median, quantile } from './statistics.ts';

/** With the load generator of `load/`. */
export const scenarios: readonly Scenario[] = [
  ingest('ingest', 'ingest', { spreadSeconds: false }),
  ingest('signatures', 'ingest, no signature twice', { spreadSeconds: true }),
  {
    name: 'latency',
    sendsCommands: false,
    metrics: ({ perSecond }) => [
      { title: `latency at ${perSecond.toLocaleString('en')} events/s, p50`, unit: 'ms', better: 'less', decimals: 1 },
      { title: 'the same, p99', unit: 'ms', better: 'less', decimals: 1 },
    ],
    measure: (server, sizes) =>
      withGenerator(async (generator) => {
        const { perSecond, pacedSeconds } = sizes;
        await connect(generator, server, sizes.agents, sizes);
        const warmUp = await send(generator, server, { events: sizes.warmUpEvents });
        const paced = await send(generator, server, { events: perSecond * pacedSeconds, perSecond });
        const isLate = paced.sendingSeconds > pacedSeconds * 1.02;
        return {
          values: [paced.p50Ms, paced.p99Ms],
          faults: [
            ...[warmUp, paced].flatMap(deliveryFaults),
            ...(isLate ? [`the generator sent only ${Math.round(paced.sent / paced.sendingSeconds)} events/s`] : []),
          ],
        };
      }),
  },
  ...commandScenarios,
  {
    name: 'memory',
    sendsCommands: false,
    metrics: ({ idleAgents }) => [
      {
        title: `memory of each of ${idleAgents.toLocaleString('en')} idle agents`,
        unit: 'KiB',
        better: 'less',
        decimals: 1,
      },
      { title: 'the server with all of them', unit: 'MiB', better: 'less', decimals: 0 },
    ],
    measure: async (server, sizes) => {
      // A few agents come and go first: what the first ones cost once is not what each costs.
      await withGenerator((generator) => connect(generator, server, sizes.agents, sizes));
      const beforeKib = await settledKib(server, sizes.settleMs / 2);
      return withGenerator(async (generator) => {
        await connect(generator, server, sizes.idleAgents, sizes);
        const withAllKib = await settledKib(server, sizes.settleMs);
        // Fails where an agent was lost meanwhile.
        await connect(generator, server, 0, sizes);
        return { values: [(withAllKib - beforeKib) / sizes.idleAgents, withAllKib / 1_024], faults: [] };
      });
    },
  },
  {
    name: 'handshakes',
    sendsCommands: false,
    metrics: ({ handshakesAtOnce }) => [
      { title: 'one handshake on an idle server, p50', unit: 'ms', better: 'less', decimals: 1 },
      { title: 'the slowest, which is the first after the start', unit: 'ms', better: 'less', decimals: 1 },
      { title: `handshakes of new agents, ${handshakesAtOnce} at once`, unit: '1/s', better: 'more', decimals: 0 },
      { title: `handshakes of known agents, ${handshakesAtOnce} at once`, unit: '1/s', better: 'more', decimals: 0 },
    ],
    measure: ({ target }, sizes) =>
      withGenerator(async (generator) => {
        const { handshakes, handshakesOneByOne, handshakesAtOnce: atOnce } = sizes;
        const { handshakesMs } = await generator.order(
          { do: 'connect one by one', target, agents: handshakesOneByOne, pauseMs: 20 },
          connectedOneByOne,
        );
        const first = await generator.order({ do: 'connect', target, agents: handshakes, atOnce }, connected);
        const again = await generator.order({ do: 'reconnect', target, atOnce }, connected);
        return {
          values: [
            quantile(handshakesMs, 0.5),
            quantile(handshakesMs, 1),
            handshakes / first.seconds,
            (handshakes + handshakesOneByOne) / again.seconds,
          ],
          faults: [],
        };
      }),
  },
  {
    name: 'storm',
    sendsCommands: false,
    metrics: ({ stormAgents }) => [
      {
        title: `${stormAgents.toLocaleString('en')} agents drop and dial at once: until all are back`,
        unit: 's',
        better: 'less',
        decimals: 1,
      },
      { title: 'the same, the slowest from its dial to its answer', unit: 's', better: 'less', decimals: 1 },
    ],
    measure: ({ target }, { stormAgents: agents, handshakesAtOnce: atOnce }) =>
      withGenerator(async (generator) => {
        await generator.order({ do: 'connect', target, agents, atOnce }, connected);
        const { seconds, slowestMs } = await generator.order({ do: 'storm', target }, weathered);
        return { values: [seconds, slowestMs / 1_000], faults: [] };
      }),
  },
];

function ingest(name: ScenarioName, title: string, load: { readonly spreadSeconds: boolean }): Scenario {
  return {
    name,
    sendsCommands: false,
    metrics: ({ agents }) => [
      { title: `${title}, ${agents} agents to one subscriber`, unit: 'events/s', better: 'more', decimals: 0 },
      { title: "the server's processor time for each event", unit: 'µs', better: 'less', decimals: 0 },
    ],
    measure: (server, sizes) =>
      withGenerator(async (generator) => {
        await connect(generator, server, sizes.agents, sizes);
        const warmUp = await send(generator, server, { ...load, events: sizes.warmUpEvents });
        const beforeSeconds = processorSeconds(server.pid);
        const result = await send(generator, server, { ...load, events: sizes.events });
        const usedSeconds = processorSeconds(server.pid) - beforeSeconds;
        return {
          values: [(result.sent - result.lost) / result.seconds, (usedSeconds / result.sent) * 1_000_000],
          faults: [warmUp, result].flatMap(deliveryFaults),
        };
      }),
  };
}

function send(
  generator: Generator,
  { target }: Server,
  load: { events: number; perSecond?: number; spreadSeconds?: boolean },
): Promise<Delivered> {
  return generator.order({ do: 'send events', target, perSecond: null, spreadSeconds: false, ...load }, delivered);
}

function deliveryFaults({ sent, lost, duplicated }: Delivered): string[] {
  return [
    ...(lost > 0 ? [`${lost} of ${sent} events were lost`] : []),
    ...(duplicated > 0 ? [`${duplicated} of ${sent} events came twice`] : []),
  ];
}

const samples = 10;
const sampleIntervalMs = 200;

/** The memory of a server that has been left alone for `settleMs`. */
async function settledKib({ pid }: Server, settleMs: number): Promise<number> {
  await pause(settleMs);
  const kib: number[] = [];
  for (let taken = 0; taken < samples; taken++) {
    kib.push(residentKib(pid));
    await pause(sampleIntervalMs);
  }
  return median(kib);
}
