import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { z } from 'zod';
import { findDatabases } from './database.ts';
import { projectRoot, residentKib } from './processes.ts';
import { machineFacts } from './report.ts';
import { gateway } from './servers.ts';
import type { Attack } from './silent-dialer.ts';
import { median, quantile } from './statistics.ts';
import { type BenchV2Agent, connectV2, newV2Key, pinOf } from './v2-agent.ts';

// Twenty thousand sockets that say nothing, begin a handshake, or drip one byte a second, beside agents that go on with their
// work (docs/PERFORMANCE.md, "Silent sockets"): what each costs the gateway, and what the agents notice. `npm run build` first.
// A process needs as many descriptors: `ulimit -n`.
//
//   npx tsx bench/silent-sockets.ts [SOCKETS]

const sockets = Number(process.argv[2] ?? 20_000);
const dialers = 2;
/** Each with as many sockets as it may have. */
const addresses = 200;
const agents = 50;
const attackSeconds = 20;
const headers = ['GET /ws/agent HTTP/1.1', 'Host: gateway', 'Connection: Upgrade', 'Upgrade: websocket'];
const keyHeaders = ['Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='];
const upgradeTo = (protocol: 'v1' | 'v2') =>
  `${[...headers, ...keyHeaders, ...(protocol === 'v2' ? ['Sec-WebSocket-Protocol: aegis.v2'] : []), '', ''].join('\r\n')}`;
/** A text frame that claims 16 KiB, half of it. */
const halfAFrame = `\x81\xfe\x40\x00\x01\x02\x03\x04${'x'.repeat(8_192)}`;

const attacks: readonly (Attack & { readonly name: string })[] = [
  { name: 'say nothing at all', atOnce: '' },
  { name: 'upgrade to v2 and say nothing', atOnce: upgradeTo('v2') },
  { name: 'upgrade to v2 and send half a frame', atOnce: upgradeTo('v2'), afterUpgrade: halfAFrame },
  { name: 'upgrade to v1 and send half a frame', atOnce: upgradeTo('v1'), afterUpgrade: halfAFrame },
  { name: 'send a request, one byte a second', atOnce: '', drip: upgradeTo('v2') },
];

const databases = await findDatabases({ embedded: false });
const server = await gateway(databases).start();
const { hostname, port } = new URL(server.target.agentUrl);
console.log(`${machineFacts(databases.description)}; ${sockets} sockets from ${addresses} addresses.\n`);
console.log('| sockets that | upgraded | refused | KiB each | acknowledgement p50, p99, ms before | meanwhile |');
console.log('| --- | --: | --: | --: | --: | --: |');
const pin = await pinOf(server.target);
const honest = await Promise.all(
  Array.from({ length: agents }, (_, index) =>
    connectV2({ url: server.target.agentUrl, pin, name: `honest-${index}`, key: newV2Key() }),
  ),
);
await latencies(3);
for (const attack of attacks) await play(attack);
await server.stop();
process.exit(0);

async function play({ name, ...attack }: (typeof attacks)[number]): Promise<void> {
  const before = await latencies(5);
  const residentBefore = residentKib(server.pid);
  const processes = Array.from({ length: dialers }, () => fork(join(projectRoot, 'bench/silent-dialer.ts')));
  const order = { host: hostname, port: Number(port), sockets: sockets / dialers, addresses, attack };
  const dialled = Promise.all(processes.map((dialer) => once(dialer, 'message')));
  for (const dialer of processes) dialer.send(order);
  const [whileDialling] = await Promise.all([latencies(attackSeconds), dialled]);
  const grown = residentKib(server.pid) - residentBefore;
  const ended = Promise.all(processes.map((dialer) => once(dialer, 'message')));
  for (const dialer of processes) dialer.send('stop');
  const counts = (await ended).map(([message]) => z.object({ upgraded: z.int(), refused: z.int() }).parse(message));
  const total = (which: 'upgraded' | 'refused') => counts.reduce((sum, each) => sum + each[which], 0);
  const perSocket = (grown / sockets).toFixed(1);
  const cells = [name, total('upgraded'), total('refused'), perSocket, text(before), text(whileDialling)];
  console.log(`| ${cells.join(' | ')} |`);
  await pause(10_000);
}

/** From the sending of an event to its acknowledgement: each agent sends ten a second. */
async function latencies(seconds: number): Promise<readonly number[]> {
  const measured = await Promise.all(honest.map((agent) => latenciesOf(agent, seconds)));
  return measured.flat();
}

async function latenciesOf(agent: BenchV2Agent, seconds: number): Promise<number[]> {
  const measured: number[] = [];
  const endMs = performance.now() + 1_000 * seconds;
  while (performance.now() < endMs) {
    const before = agent.acknowledged;
    const startedMs = performance.now();
    for (const frame of agent.seal(['x'.repeat(200)], 1)) agent.socket.send(frame);
    while (agent.acknowledged === before && agent.socket.readyState === agent.socket.OPEN) await pause(1);
    measured.push(performance.now() - startedMs);
    await pause(100);
  }
  if (agent.socket.readyState !== agent.socket.OPEN) throw new Error('an honest agent was closed');
  return measured;
}

function text(measured: readonly number[]): string {
  return `${median(measured).toFixed(1)}, ${quantile(measured, 0.99).toFixed(1)}`;
}
