import { setTimeout as pause } from 'node:timers/promises';
import { quantile } from '../statistics.ts';
import type { LoadAgent } from './agent.ts';
import type { Consumer } from './consumer.ts';
import type { Broadcasted, Commanded, CommandPace } from './protocol.ts';

const pollIntervalMs = 50;
/** Nothing was confirmed for so long: the rest never will be. */
const silenceMs = 30_000;

/** A command that the server has accepted. */
interface Accepted {
  readonly agent: LoadAgent;
  readonly id: string;
}

/** Sends `count` commands to the agents in turn, and follows them until the server knows them all to be read. */
export async function command(
  agents: readonly LoadAgent[],
  consumer: Consumer,
  options: { readonly firstSequence: number; readonly count: number; readonly pace: CommandPace },
): Promise<Commanded> {
  const { firstSequence, count, pace } = options;
  const sentMs = new Float64Array(count);
  const latenciesMs: number[] = [];
  const accepted: Accepted[] = [];
  listen(agents, (sequence, atMs) => {
    const sentAtMs = sentMs[sequence - firstSequence];
    if (sentAtMs !== undefined) latenciesMs.push(atMs - sentAtMs);
  });

  async function send(index: number): Promise<void> {
    const agent = agents[index % agents.length];
    if (!agent) throw new Error('there are no agents');
    sentMs[index] = performance.now();
    accepted.push({ agent, id: await consumer.command(agent.name, firstSequence + index) });
  }

  const confirmedBefore = await consumer.confirmed();
  const startMs = performance.now();
  if ('atOnce' in pace) await sendAtOnce(count, pace.atOnce, send);
  else await sendPaced(count, pace.perSecond, startMs, send);
  const acceptedMs = performance.now();
  const confirmedMs = await untilConfirmed(confirmedBefore + count, () => consumer.confirmed());

  const isRead = ({ agent, id }: Accepted) => agent.journal.has(id);
  return {
    ...(await commandsRead(agents, count, () => accepted.filter(isRead).length)),
    acceptedSeconds: (acceptedMs - startMs) / 1_000,
    confirmedSeconds: (confirmedMs - startMs) / 1_000,
    p50Ms: quantile(latenciesMs, 0.5),
    p99Ms: quantile(latenciesMs, 0.99),
  };
}

/** Sends one command to all agents, and follows it to each of them. */
export async function broadcast(
  agents: readonly LoadAgent[],
  consumer: Consumer,
  sequence: number,
): Promise<Broadcasted> {
  let readMs = 0;
  listen(agents, (_sequence, atMs) => {
    readMs = atMs;
  });
  const startMs = performance.now();
  const name = await consumer.broadcast(sequence);
  const confirmedMs = await untilConfirmed(agents.length, () => consumer.confirmedOf(name));

  const hasRead = ({ journal }: LoadAgent) => journal.size > 0;
  return {
    ...(await commandsRead(agents, agents.length, () => agents.filter(hasRead).length)),
    confirmedSeconds: (confirmedMs - startMs) / 1_000,
    readSeconds: (readMs - startMs) / 1_000,
  };
}

/** From now on the agents keep a new journal, and tell what they read. */
function listen(agents: readonly LoadAgent[], onCommand: LoadAgent['onCommand']): void {
  for (const agent of agents) {
    agent.journal.clear();
    agent.onCommand = onCommand;
  }
}

/** Counts once the agents have read whatever they will read. */
async function commandsRead(agents: readonly LoadAgent[], sent: number, countRead: () => number) {
  // What comes twice comes soon after the first.
  await pause(100);
  const read = countRead();
  const readings = agents.reduce((sum, { journal }) => sum + [...journal.values()].reduce((a, b) => a + b, 0), 0);
  return { sent, lost: sent - read, duplicated: readings - read };
}

/** Resolves with the time at which the server knew `wanted` of them to be read, or no more came for `silenceMs`. */
async function untilConfirmed(wanted: number, confirmed: () => Promise<number>): Promise<number> {
  let known = -1;
  let changedMs = performance.now();
  while (performance.now() - changedMs < silenceMs) {
    const now = await confirmed();
    if (now !== known) changedMs = performance.now();
    known = now;
    if (known >= wanted) return changedMs;
    await pause(pollIntervalMs);
  }
  throw new Error(`${known} of ${wanted} commands were confirmed`);
}

async function sendAtOnce(count: number, atOnce: number, send: (index: number) => Promise<void>): Promise<void> {
  let next = 0;
  async function sendOnes(): Promise<void> {
    while (next < count) await send(next++);
  }
  await Promise.all(Array.from({ length: atOnce }, sendOnes));
}

/** At a steady rate, whatever becomes of what was sent; resolves when all has been answered. */
async function sendPaced(
  count: number,
  perSecond: number,
  startMs: number,
  send: (index: number) => Promise<void>,
): Promise<void> {
  const answers: Promise<void>[] = [];
  for (let index = 0; index < count; index++) {
    const aheadMs = startMs + (index / perSecond) * 1_000 - performance.now();
    if (aheadMs > 0) await pause(aheadMs);
    answers.push(send(index));
  }
  await Promise.all(answers);
}
