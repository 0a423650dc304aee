import { setTimeout as pause } from 'node:timers/promises';
import type { z } from 'zod';
import { deployedPatience, LoadAgent } from './agent.ts';
import { broadcast, command } from './commanding.ts';
import { type Consumer, createConsumer } from './consumer.ts';
import { deliver, probe } from './delivery.ts';
import {
  command as anyCommand,
  type Broadcasted,
  type Command,
  type Commanded,
  type connected,
  type connectedOneByOne,
  type Delivered,
  type weathered,
} from './protocol.ts';
import { type Subscriber, subscribe } from './subscriber.ts';

// The load generator: plays enveloped v1 agents, one subscriber and one consumer who sends commands, against any server. A process of its own, started with
// `fork`; it ends with the one that started it.

const run = `${process.pid.toString(36)}${Date.now().toString(36)}`;
const agents: LoadAgent[] = [];
let subscriber: Subscriber | null = null;
let consumer: Consumer | null = null;
let nextSequence = 0;
/** Connections that a server ended: no measurement that follows counts. */
const losses: string[] = [];

type Reply =
  | z.infer<typeof connected>
  | z.infer<typeof connectedOneByOne>
  | z.infer<typeof weathered>
  | Delivered
  | Commanded
  | Broadcasted;

async function obey(order: Command): Promise<Reply> {
  switch (order.do) {
    case 'connect': {
      const newcomers = newAgents(order.agents);
      return { seconds: await connectAll(newcomers, order.target.agentUrl, order.atOnce) };
    }
    case 'reconnect': {
      await Promise.all(agents.map((agent) => agent.leave()));
      for (const agent of agents) agent.prepare();
      return { seconds: await connectAll(agents, order.target.agentUrl, order.atOnce) };
    }
    case 'storm': {
      await Promise.all(agents.map((agent) => agent.leave()));
      for (const agent of agents) agent.prepare();
      const startMs = performance.now();
      const tookMs = await Promise.all(agents.map((agent) => agent.connect(order.target.agentUrl, deployedPatience)));
      const slowestMs = tookMs.reduce((most, each) => Math.max(most, each), 0);
      return { seconds: (performance.now() - startMs) / 1_000, slowestMs };
    }
    case 'connect one by one': {
      const handshakesMs: number[] = [];
      for (const agent of newAgents(order.agents)) {
        await pause(order.pauseMs);
        handshakesMs.push(await agent.connect(order.target.agentUrl));
      }
      return { handshakesMs };
    }
    case 'send events': {
      const [first] = agents;
      if (!first) throw new Error('no agent is connected');
      subscriber ??= await subscribe(order.target, (reason) => losses.push(reason));
      const firstSequence = await probe(first, subscriber, nextSequence);
      nextSequence = firstSequence + order.events;
      return deliver(agents, subscriber, { ...order, firstSequence, count: order.events });
    }
    case 'send commands': {
      consumer ??= createConsumer(order.target);
      const firstSequence = nextSequence;
      nextSequence += order.commands;
      return command(agents, consumer, { firstSequence, count: order.commands, pace: order.pace });
    }
    case 'broadcast': {
      consumer ??= createConsumer(order.target);
      return broadcast(agents, consumer, nextSequence++);
    }
  }
}

function newAgents(count: number): LoadAgent[] {
  const newcomers = Array.from(
    { length: count },
    (_, index) => new LoadAgent(`load-${run}-${agents.length + index}`, (reason) => losses.push(reason)),
  );
  for (const agent of newcomers) agent.prepare();
  agents.push(...newcomers);
  return newcomers;
}

/** Resolves with the seconds that it took. */
async function connectAll(those: readonly LoadAgent[], url: string, atOnce: number): Promise<number> {
  const startMs = performance.now();
  const waiting = those.values();
  // One iterator for all: each takes the next that nobody has.
  async function connectOnes(): Promise<void> {
    for (const agent of waiting) await agent.connect(url);
  }
  await Promise.all(Array.from({ length: atOnce }, connectOnes));
  return (performance.now() - startMs) / 1_000;
}

process.on('message', (message) => {
  obey(anyCommand.parse(message)).then(
    (reply) => process.send?.(losses.length === 0 ? reply : { failed: losses.slice(0, 3).join('; ') }),
    (error: unknown) => process.send?.({ failed: error instanceof Error ? error.message : String(error) }),
  );
});
process.once('disconnect', () => process.exit());
