import { connect, type Generator, withGenerator } from './generator.ts';
import { type Broadcasted, broadcasted, type Commanded, type CommandPace, commanded } from './load/protocol.ts';
import type { Sizes } from './options.ts';
import { processorSeconds } from './processes.ts';
import type { Scenario } from './scenario.ts';
import type { Server } from './servers.ts';

/** What is sent to agents: from the request of a consumer until it is confirmed that they have read it. */
export const commandScenarios: readonly Scenario[] = [
  {
    name: 'commands',
    sendsCommands: true,
    metrics: ({ commandedAgents, commandsAtOnce }) => [
      {
        title: `commands to ${commandedAgents} agents, ${commandsAtOnce} requests at once, accepted`,
        unit: '1/s',
        better: 'more',
        decimals: 0,
      },
      { title: 'the same, until all are confirmed', unit: '1/s', better: 'more', decimals: 0 },
      { title: "the server's processor time for each command", unit: 'µs', better: 'less', decimals: 0 },
    ],
    measure: (server, sizes) =>
      withGenerator(async (generator) => {
        const pace = { atOnce: sizes.commandsAtOnce };
        const warmUp = await warmedUp(generator, server, sizes);
        const beforeSeconds = processorSeconds(server.pid);
        const result = await send(generator, server, sizes.commands, pace);
        const usedSeconds = processorSeconds(server.pid) - beforeSeconds;
        return {
          values: [
            result.sent / result.acceptedSeconds,
            result.sent / result.confirmedSeconds,
            (usedSeconds / result.sent) * 1_000_000,
          ],
          faults: [warmUp, result].flatMap(commandFaults),
        };
      }),
  },
  {
    name: 'command-latency',
    sendsCommands: true,
    metrics: ({ commandsPerSecond }) => [
      {
        title: `a command until its agent has read it, at ${commandsPerSecond}/s, p50`,
        unit: 'ms',
        better: 'less',
        decimals: 1,
      },
      { title: 'the same, p99', unit: 'ms', better: 'less', decimals: 1 },
    ],
    measure: (server, sizes) =>
      withGenerator(async (generator) => {
        const { commandsPerSecond: perSecond, commandSeconds } = sizes;
        const warmUp = await warmedUp(generator, server, sizes);
        const paced = await send(generator, server, perSecond * commandSeconds, { perSecond });
        const isLate = paced.acceptedSeconds > commandSeconds * 1.02 + 1;
        return {
          values: [paced.p50Ms, paced.p99Ms],
          faults: [
            ...[warmUp, paced].flatMap(commandFaults),
            ...(isLate ? [`only ${Math.round(paced.sent / paced.acceptedSeconds)} commands/s were accepted`] : []),
          ],
        };
      }),
  },
  {
    name: 'broadcast',
    sendsCommands: true,
    metrics: ({ broadcastAgents }) => [
      {
        title: `one broadcast to ${broadcastAgents.toLocaleString('en')} agents until all have read it`,
        unit: 's',
        better: 'less',
        decimals: 2,
      },
      { title: 'the same, until all are confirmed', unit: 's', better: 'less', decimals: 2 },
    ],
    measure: (server, sizes) =>
      withGenerator(async (generator) => {
        await connect(generator, server, sizes.broadcastAgents, sizes);
        // The first finds agents that do not take commands yet.
        const warmUp = await sendToAll(generator, server);
        const result = await sendToAll(generator, server);
        return {
          values: [result.readSeconds, result.confirmedSeconds],
          faults: [warmUp, result].flatMap(commandFaults),
        };
      }),
  },
];

/** Agents that take commands, and have. */
async function warmedUp(generator: Generator, server: Server, sizes: Sizes): Promise<Commanded> {
  await connect(generator, server, sizes.commandedAgents, sizes);
  return send(generator, server, sizes.warmUpCommands, { atOnce: sizes.commandsAtOnce });
}

function send(generator: Generator, { target }: Server, commands: number, pace: CommandPace): Promise<Commanded> {
  return generator.order({ do: 'send commands', target, commands, pace }, commanded);
}

function sendToAll(generator: Generator, { target }: Server): Promise<Broadcasted> {
  return generator.order({ do: 'broadcast', target }, broadcasted);
}

function commandFaults({ sent, lost, duplicated }: Commanded | Broadcasted): string[] {
  return [
    ...(lost > 0 ? [`${lost} of ${sent} commands were never read`] : []),
    ...(duplicated > 0 ? [`${duplicated} commands too many were read, of ${sent}`] : []),
  ];
}
