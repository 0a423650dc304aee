import { setTimeout as pause } from 'node:timers/promises';
import { z } from 'zod';
import { deployedPatience, LoadAgent, unixSeconds } from './agent.ts';

// Agents of v1 that dial seven seconds after they have lost their link, all alike, as deployed ones do, and give up for good where
// that fails. A process of its own, started with `fork`; it ends with the one that started it (`kill-storm.ts`).

export const order = z.discriminatedUnion('do', [
  z.object({ do: z.literal('connect'), url: z.string(), agents: z.int(), atOnce: z.int() }),
  /** Answered when all that had a link have lost it and are back, or have given up. */
  z.object({ do: z.literal('return') }),
  /** One event of each that is connected. */
  z.object({ do: z.literal('report'), round: z.int() }),
]);
export type Order = z.infer<typeof order>;

export const returned = z.object({
  /** From the first loss to the last answer. */
  seconds: z.number(),
  /** From a dial to the answer to its authentication. */
  medianMs: z.number(),
  slowestMs: z.number(),
  /** Why some gave up. */
  stranded: z.array(z.string()),
});
export const done = z.object({ agents: z.int() });

const redialDelayMs = 7_000;
const agents: LoadAgent[] = [];
const connected = new Set<LoadAgent>();
const stranded: string[] = [];
const dialsMs: number[] = [];
let url = '';
let firstLossMs = 0;
let settled = 0;
let whenAllSettled = () => {};

async function lost(agent: LoadAgent): Promise<void> {
  // Told once for the error and once for the end.
  if (!connected.delete(agent)) return;
  firstLossMs ||= performance.now();
  await pause(redialDelayMs);
  agent.prepare();
  try {
    dialsMs.push(await agent.connect(url, deployedPatience));
    connected.add(agent);
  } catch (error) {
    stranded.push(`${agent.name}: ${error instanceof Error ? error.message : error}`);
  }
  if (++settled === agents.length) whenAllSettled();
}

async function connectAll(count: number, atOnce: number): Promise<void> {
  for (let number = 0; number < count; number++) {
    const agent: LoadAgent = new LoadAgent(`storm-${process.pid}-${number}`, () => void lost(agent));
    agents.push(agent);
  }
  const waiting = agents.values();
  // One iterator for all: each takes the next that nobody has.
  async function connectOnes(): Promise<void> {
    for (const agent of waiting) {
      agent.prepare();
      await agent.connect(url);
      connected.add(agent);
    }
  }
  await Promise.all(Array.from({ length: atOnce }, connectOnes));
}

async function obey(asked: Order): Promise<unknown> {
  switch (asked.do) {
    case 'connect':
      url = asked.url;
      await connectAll(asked.agents, asked.atOnce);
      return { agents: connected.size };
    case 'return': {
      if (settled < agents.length)
        await new Promise<void>((resolve) => {
          whenAllSettled = resolve;
        });
      const seconds = (performance.now() - firstLossMs) / 1_000;
      dialsMs.sort((a, b) => a - b);
      const [medianMs = 0, slowestMs = 0] = [dialsMs[Math.floor(dialsMs.length / 2)], dialsMs.at(-1)];
      return { seconds, medianMs, slowestMs, stranded };
    }
    case 'report':
      await Promise.all([...connected].map((agent) => agent.send(agent.eventFrame(asked.round, unixSeconds()))));
      return { agents: connected.size };
  }
}

process.on('message', (message) => {
  obey(order.parse(message)).then(
    (reply) => process.send?.(reply),
    (error: unknown) => process.send?.({ failed: error instanceof Error ? error.message : String(error) }),
  );
});
process.once('disconnect', () => process.exit());
