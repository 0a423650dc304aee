import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { findDatabases } from './database.ts';
import { subscribe } from './load/subscriber.ts';
import { processorSeconds, residentKib } from './processes.ts';
import { machineFacts } from './report.ts';
import { gateway, type Server } from './servers.ts';
import { type BenchV2Agent, connectV2, newV2Key, pinOf } from './v2-agent.ts';

// What agents of protocol v2 cost the gateway (docs/PERFORMANCE.md, "Protocol v2"): handshakes, events in records of 1, 16 and
// 64, and memory. An event counts
// once it is acknowledged, hence stored, and read by one subscriber. `npm run build` first.
//
//   npx tsx bench/v2.ts [--only handshakes,events,memory] [--workers N] [--cpu-profile DIR]

const agents = 100;
const events = 38_400;
const warmUpEvents = 6_400;
const batches = [1, 16, 64];
/** The subscriber knows an event by the number between the signs. */
const textOf = (sequence: number) => `@${sequence}@`.padEnd(300, 'x');
const handshakes = 2_000;
const handshakesAtOnce = 32;
const idleAgents = 5_000;
const settleMs = 20_000;

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: 'handshakes,events,memory' },
    workers: { type: 'string', default: '1' },
    'cpu-profile': { type: 'string' },
  },
});
const only = options.only.split(',');
const databases = await findDatabases({ embedded: false });
const contestant = gateway(databases, {
  cpuProfile: options['cpu-profile'] ?? null,
  workers: Number(options.workers),
});
console.log(`${machineFacts(databases.description)}.\n`);
if (only.includes('handshakes')) await withServer(measureHandshakes);
if (only.includes('events'))
  for (const batch of batches) await withServer((server, pin) => measureEvents(server, pin, batch));
if (only.includes('memory')) await withServer(measureMemory);
process.exit(0);

async function withServer(work: (server: Server, pin: string) => Promise<void>): Promise<void> {
  const server = await contestant.start();
  try {
    await work(server, await pinOf(server.target));
  } finally {
    await server.stop();
  }
}

async function connectAll(server: Server, pin: string, count: number): Promise<BenchV2Agent[]> {
  const connected: BenchV2Agent[] = [];
  const keys = Array.from({ length: count }, newV2Key);
  async function connectNext(): Promise<void> {
    for (let key = keys.pop(); key; key = keys.pop())
      connected.push(await connectV2({ url: server.target.agentUrl, pin, name: `bench-${keys.length}`, key }));
  }
  await Promise.all(Array.from({ length: handshakesAtOnce }, connectNext));
  return connected;
}

async function measureHandshakes(server: Server, pin: string): Promise<void> {
  await connectAll(server, pin, 200);
  const [startedMs, processorBefore] = [performance.now(), processorSeconds(server.pid)];
  const connected = await connectAll(server, pin, handshakes);
  const seconds = (performance.now() - startedMs) / 1_000;
  const processorMs = (1_000 * (processorSeconds(server.pid) - processorBefore)) / handshakes;
  console.log(
    `handshakes, ${handshakesAtOnce} at once: ${(handshakes / seconds).toFixed(0)}/s, ` +
      `${processorMs.toFixed(2)} ms of the gateway's processor each`,
  );
  for (const { socket } of connected) socket.terminate();
}

async function measureEvents(server: Server, pin: string, batch: number): Promise<void> {
  const connected = await connectAll(server, pin, agents);
  const subscriber = await subscribe(server.target, (reason) => {
    throw new Error(reason);
  });
  const first = connected[0];
  if (!first) throw new Error('nobody has come');
  await until(async () => {
    for (const frame of first.seal([textOf(0)], 1)) first.socket.send(frame);
    return (await seenWithin(200)) > 0;
  });
  await sendAll(warmUpEvents);
  const processorBefore = processorSeconds(server.pid);
  const seconds = await sendAll(events);
  const processorUs = (1e6 * (processorSeconds(server.pid) - processorBefore)) / events;
  console.log(
    `events in records of ${batch}, ${agents} agents to one subscriber: ${(events / seconds).toFixed(0)}/s, ` +
      `${processorUs.toFixed(0)} µs of the gateway's processor each`,
  );
  subscriber.close();
  for (const { socket } of connected) socket.terminate();

  function seenWithin(ms: number): Promise<number> {
    let seen = 0;
    subscriber.onEvent = () => seen++;
    return pause(ms).then(() => seen);
  }

  /** Resolves, with the seconds that it took, when every event has been acknowledged and read. */
  async function sendAll(count: number): Promise<number> {
    const each = count / agents;
    const frames = connected.map((agent, index) =>
      agent.seal(
        Array.from({ length: each }, (_, number) => textOf(index * each + number)),
        batch,
      ),
    );
    const acknowledgedBefore = totalAcknowledged();
    const seen = new Set<number>();
    subscriber.onEvent = (sequence) => seen.add(sequence);
    const startedMs = performance.now();
    const rounds = frames[0]?.length ?? 0;
    for (let round = 0; round < rounds; round++)
      for (const [index, { socket }] of connected.entries()) socket.send(frames[index]?.[round] ?? '');
    await until(async () => totalAcknowledged() - acknowledgedBefore >= count && seen.size === count);
    return (performance.now() - startedMs) / 1_000;
  }

  function totalAcknowledged(): number {
    return connected.reduce((sum, { acknowledged }) => sum + acknowledged, 0);
  }
}

async function measureMemory(server: Server, pin: string): Promise<void> {
  for (const { socket } of await connectAll(server, pin, 100)) socket.terminate();
  await pause(2_000);
  const before = residentKib(server.pid);
  const connected = await connectAll(server, pin, idleAgents);
  await pause(settleMs);
  const each = (residentKib(server.pid) - before) / idleAgents;
  console.log(`memory of each of ${idleAgents} idle agents: ${each.toFixed(1)} KiB`);
  for (const { socket } of connected) socket.terminate();
}

async function until(check: () => Promise<boolean>, timeoutMs = 120_000): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs;
  while (!(await check())) {
    if (performance.now() > deadlineMs) throw new Error('events were lost');
    await pause(5);
  }
}
