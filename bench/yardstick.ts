import { join } from 'node:path';
import type { Sizes } from './options.ts';
import { startProgram } from './processes.ts';
import type { Scenario } from './scenario.ts';
import type { Server } from './servers.ts';

/** The same with the Go program `loadgen` in `folder`: another hand's load, and another language's. */
export function goScenarios(folder: string): readonly Scenario[] {
  return [
    {
      name: 'ingest',
      sendsCommands: false,
      metrics: ({ agents }) => [
        { title: `ingest, ${agents} agents to one subscriber`, unit: 'events/s', better: 'more', decimals: 0 },
      ],
      async measure(server, sizes) {
        const warmUp = await sendWithGo(folder, server, sizes, ['-events', String(sizes.warmUpEvents)]);
        const result = await sendWithGo(folder, server, sizes, ['-events', String(sizes.events)]);
        return { values: [result.perSecond], faults: [...warmUp.faults, ...result.faults] };
      },
    },
    {
      name: 'latency',
      sendsCommands: false,
      metrics: ({ perSecond }) => [
        {
          title: `latency at ${perSecond.toLocaleString('en')} events/s, p50`,
          unit: 'ms',
          better: 'less',
          decimals: 1,
        },
        { title: 'the same, p99', unit: 'ms', better: 'less', decimals: 1 },
      ],
      async measure(server, sizes) {
        const { perSecond, pacedSeconds } = sizes;
        const warmUp = await sendWithGo(folder, server, sizes, ['-events', String(sizes.warmUpEvents)]);
        const paced = ['-events', String(perSecond * pacedSeconds), '-rate', String(perSecond)];
        const result = await sendWithGo(folder, server, sizes, paced);
        return { values: [result.p50Ms, result.p99Ms], faults: [...warmUp.faults, ...result.faults] };
      },
    },
    {
      name: 'handshakes',
      sendsCommands: false,
      metrics: () => [{ title: 'handshakes of new agents, 32 at once', unit: '1/s', better: 'more', decimals: 0 }],
      async measure(server, sizes) {
        const warmUp = Math.round(sizes.handshakes / 10);
        await connectWithGo(folder, server, warmUp);
        return { values: [sizes.handshakes / (await connectWithGo(folder, server, sizes.handshakes))], faults: [] };
      },
    },
  ];
}

const timeoutMs = 300_000;

/** Resolves with the seconds that it took. */
async function connectWithGo(folder: string, { target }: Server, agents: number): Promise<number> {
  const args = ['-url', target.agentUrl, '-agents', String(agents), '-idle', '1ms'];
  const loadgen = await startProgram(join(folder, 'loadgen'), args);
  try {
    const [, seconds] = await loadgen.line(/^connected \d+ agents in ([\d.]+)s .* 0 failed$/, timeoutMs);
    return Number(seconds);
  } finally {
    await loadgen.stop();
  }
}

async function sendWithGo(folder: string, { target }: Server, sizes: Sizes, load: readonly string[]) {
  const { agentUrl, subscriberUrl, graphqlToken } = target;
  const mode = graphqlToken === null ? ['-mode', 'raw'] : ['-mode', 'graphql', '-token', graphqlToken];
  const args = ['-url', agentUrl, '-sub', subscriberUrl, ...mode, '-agents', String(sizes.agents), ...load];
  const loadgen = await startProgram(join(folder, 'loadgen'), args);
  try {
    const [, lost, perSecond, p50Ms, p99Ms] = await loadgen.line(
      /\(lost (\d+)\), (\d+) events\/s end to end, latency ms p50 ([\d.-]+) p99 ([\d.-]+)/,
      timeoutMs,
    );
    return {
      perSecond: Number(perSecond),
      p50Ms: Number(p50Ms),
      p99Ms: Number(p99Ms),
      faults: lost === '0' ? [] : [`${lost} events were lost`],
    };
  } finally {
    await loadgen.stop();
  }
}
