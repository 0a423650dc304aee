import { createConnection, type Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { findDatabases } from './database.ts';
import { residentKib } from './processes.ts';
import { machineFacts } from './report.ts';
import { gateway } from './servers.ts';
import { median, quantile } from './statistics.ts';
import { type BenchV2Agent, connectV2, newV2Key, pinOf } from './v2-agent.ts';

// Twenty thousand sockets that say nothing, begin a handshake, or drip one byte a second, beside agents that go on with their
// work (docs/PERFORMANCE.md, "Silent sockets"): what each costs the gateway, and what the agents notice. `npm run build` first.
//
//   npx tsx bench/silent-sockets.ts [SOCKETS]

const sockets = Number(process.argv[2] ?? 20_000);
const dialsAtOnce = 500;
/** Each with as many sockets as it may have. */
const addresses = 200;
const agents = 50;
const attackSeconds = 20;
const headers = ['GET /ws/agent HTTP/1.1', 'Host: gateway', 'Connection: Upgrade', 'Upgrade: websocket'];
const keyHeaders = ['Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='];
const upgradeTo = (protocol: 'v1' | 'v2') =>
  `${[...headers, ...keyHeaders, ...(protocol === 'v2' ? ['Sec-WebSocket-Protocol: aegis.v2'] : []), '', ''].join('\r\n')}`;
/** A text frame that claims 16 KiB, and never ends. */
const beginning = Buffer.concat([Buffer.from([0x81, 0xfe, 0x40, 0, 1, 2, 3, 4]), Buffer.alloc(8_192, 'x')]);

interface Attack {
  readonly name: string;
  /** What each socket says at once. */
  readonly atOnce: string;
  /** And when it was upgraded. */
  readonly afterUpgrade?: Buffer;
  /** And one byte a second. */
  readonly drip?: string;
}

const attacks: readonly Attack[] = [
  { name: 'say nothing at all', atOnce: '' },
  { name: 'upgrade to v2 and say nothing', atOnce: upgradeTo('v2') },
  { name: 'upgrade to v2 and send half a frame', atOnce: upgradeTo('v2'), afterUpgrade: beginning },
  { name: 'upgrade to v1 and send half a frame', atOnce: upgradeTo('v1'), afterUpgrade: beginning },
  { name: 'send a request, one byte a second', atOnce: '', drip: upgradeTo('v2') },
];

const databases = await findDatabases({ embedded: false });
const server = await gateway(databases, null).start();
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

async function play(attack: Attack): Promise<void> {
  const before = await latencies(5);
  const residentBefore = residentKib(server.pid);
  const counts = { upgraded: 0, refused: 0 };
  const open = await dialAll(attack, counts);
  let second = 0;
  const drip = setInterval(() => {
    const byte = attack.drip?.charAt(second++) ?? '';
    if (byte !== '') for (const socket of open) if (!socket.destroyed) socket.write(byte);
  }, 1_000);
  const meanwhile = await latencies(attackSeconds);
  const grown = residentKib(server.pid) - residentBefore;
  clearInterval(drip);
  for (const socket of open) socket.destroy();
  const cells = [
    attack.name,
    counts.upgraded,
    counts.refused,
    (grown / sockets).toFixed(1),
    text(before),
    text(meanwhile),
  ];
  console.log(`| ${cells.join(' | ')} |`);
  await pause(5_000);
}

async function dialAll(attack: Attack, counts: { upgraded: number; refused: number }): Promise<Socket[]> {
  const open: Socket[] = [];
  while (open.length < sockets) {
    const batch = Array.from({ length: Math.min(dialsAtOnce, sockets - open.length) }, (_, index) =>
      createConnection({ host: hostname, port: Number(port), localAddress: `127.0.${1 + (index % addresses)}.1` }),
    );
    for (const socket of batch) {
      socket.on('error', () => {});
      socket.once('data', (data) => {
        if (data.includes(' 101 ')) {
          counts.upgraded++;
          if (attack.afterUpgrade) socket.write(attack.afterUpgrade);
        } else counts.refused++;
      });
      if (attack.atOnce !== '') socket.write(attack.atOnce);
    }
    await Promise.all(batch.map((socket) => new Promise((resolve) => socket.once('connect', resolve))));
    open.push(...batch);
  }
  return open;
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
