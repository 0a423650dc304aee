import { setTimeout as pause, setImmediate as turn } from 'node:timers/promises';
import { quantile } from '../statistics.ts';
import { type LoadAgent, unixSeconds } from './agent.ts';
import type { Delivered } from './protocol.ts';
import type { Subscriber } from './subscriber.ts';

/** Seconds on either side of now that signatures are spread over: within the 5 minutes that a clock may differ. */
const spreadBehindSeconds = 240;
const spreadSeconds = 300;
/** What an agent leaves to its socket before it waits; what it sends before others have their turn. */
const maxBufferedBytes = 64 * 1024;
const burstFrames = 4;
const probeIntervalMs = 50;
const probeTimeoutMs = 15_000;
/** Nothing came for so long: the rest is lost. */
const silenceMs = 10_000;

/** Sends events until one reaches the subscriber. Resolves with the next free sequence number. */
export async function probe(agent: LoadAgent, subscriber: Subscriber, firstSequence: number): Promise<number> {
  let isLive = false;
  subscriber.onEvent = () => {
    isLive = true;
  };
  const deadlineMs = performance.now() + probeTimeoutMs;
  let sequence = firstSequence;
  while (!isLive) {
    if (performance.now() > deadlineMs) throw new Error('the subscriber is sent nothing');
    await agent.send(agent.eventFrame(sequence++, unixSeconds()));
    await pause(probeIntervalMs);
  }
  return sequence;
}

/** Signs `count` events, has the agents send them in turn, and follows them to the subscriber. */
export async function deliver(
  agents: readonly LoadAgent[],
  subscriber: Subscriber,
  options: {
    readonly firstSequence: number;
    readonly count: number;
    readonly perSecond: number | null;
    readonly spreadSeconds: boolean;
  },
): Promise<Delivered> {
  const { firstSequence, count } = options;
  const frames = Array.from({ length: count }, (_, index) => {
    const agent = agents[index % agents.length];
    if (!agent) throw new Error('there are no agents');
    const round = Math.floor(index / agents.length) % spreadSeconds;
    const timestamp = unixSeconds() + (options.spreadSeconds ? round - spreadBehindSeconds : 0);
    return { agent, text: agent.eventFrame(firstSequence + index, timestamp) };
  });

  const sentMs = new Float64Array(count);
  const latenciesMs: number[] = [];
  const isReceived = new Uint8Array(count);
  let duplicated = 0;
  let lastMs = 0;
  subscriber.onEvent = (sequence, atMs) => {
    const index = sequence - firstSequence;
    const sentAtMs = sentMs[index];
    // A probe, which is none of these.
    if (sentAtMs === undefined) return;
    if (isReceived[index]) {
      duplicated++;
      return;
    }
    isReceived[index] = 1;
    latenciesMs.push(atMs - sentAtMs);
    lastMs = atMs;
  };

  const startMs = performance.now();
  function send(index: number): Promise<void> {
    const frame = frames[index];
    if (!frame) throw new Error(`there is no frame ${index}`);
    sentMs[index] = performance.now();
    return frame.agent.send(frame.text);
  }
  if (options.perSecond === null) await flood(agents, count, send);
  else await pace(count, options.perSecond, startMs, send);
  const sentAllMs = performance.now();
  while (latenciesMs.length < count && performance.now() - Math.max(lastMs, sentAllMs) < silenceMs) await pause(5);
  // What comes twice comes soon after the first.
  await pause(100);

  return {
    sent: count,
    lost: count - latenciesMs.length,
    duplicated,
    seconds: (lastMs - startMs) / 1_000,
    sendingSeconds: (sentAllMs - startMs) / 1_000,
    p50Ms: quantile(latenciesMs, 0.5),
    p99Ms: quantile(latenciesMs, 0.99),
    slowestMs: quantile(latenciesMs, 1),
  };
}

/** Every agent at once, each as fast as its socket takes it. */
async function flood(
  agents: readonly LoadAgent[],
  count: number,
  send: (index: number) => Promise<void>,
): Promise<void> {
  async function sendAllOf(agent: LoadAgent, place: number): Promise<void> {
    let inBurst = 0;
    for (let index = place; index < count; index += agents.length) {
      const sent = send(index);
      // Unless it waits for its socket, it waits for nothing: the next agent's turn must come before the kernel's answer.
      if (agent.bufferedBytes > maxBufferedBytes) await sent;
      else if (++inBurst % burstFrames === 0) await turn();
    }
  }
  await Promise.all(agents.map(sendAllOf));
}

/** At a steady rate, whatever becomes of what was sent: a server that falls behind is not spared. */
async function pace(
  count: number,
  perSecond: number,
  startMs: number,
  send: (index: number) => Promise<void>,
): Promise<void> {
  for (let index = 0; index < count; index++) {
    const aheadMs = startMs + (index / perSecond) * 1_000 - performance.now();
    if (aheadMs > 0) await pause(aheadMs);
    void send(index);
  }
}
