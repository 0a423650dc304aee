import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import postgres from 'postgres';
import type { z } from 'zod';
import { build } from '../scripts/build.js';
import { type Haproxy, startHaproxy } from '../tests/deploy/haproxy.ts';
import { freePort } from '../tests/faults/free-port.ts';
import { findDatabases } from './database.ts';
import { failure } from './load/protocol.ts';
import { done, type Order, returned } from './load/returning-agents.ts';
import { endAllPrograms, type Program, projectRoot, startProgram, watch } from './processes.ts';
import { machineFacts } from './report.ts';

// One of two gateways is killed with all agents of v1 on it: how long until all are back on the other, and what they report is
// stored. Through the balancer of deploy/ (docs/PERFORMANCE.md, "A storm on what is left"). Without --tls it speaks plain text: the
// agents' half of so many TLS handshakes is theirs in the field, and would have to be done by the same two cores here. Exits with
// 1 where an agent was refused, gave up, or lost an event.

const startTimeoutMs = 120_000;
const storedTimeoutMs = 60_000;

interface Killable {
  readonly address: string;
  readonly program: Program;
}

async function startGateway(env: Readonly<Record<string, string>>): Promise<Killable> {
  const port = await freePort();
  return startOn(port, env);
}

async function startOn(port: number, env: Readonly<Record<string, string>>): Promise<Killable> {
  const program = await startProgram(process.execPath, [join(projectRoot, 'dist/main.js')], {
    ...{ NODE_ENV: 'production', AGENT_ENROLLMENT: 'open', TRUST_PROXY: '127.0.0.1', WEBSOCKET_PORT: String(port) },
    ...env,
  });
  await program.line(/is ready/, startTimeoutMs);
  return { address: `127.0.0.1:${port}`, program };
}

async function ask<Reply>(agents: ChildProcess, order: Order, reply: z.ZodType<Reply>): Promise<Reply> {
  const answered = once(agents, 'message');
  agents.send(order);
  const [message] = await answered;
  const failed = failure.safeParse(message);
  if (failed.success) throw new Error(failed.data.failed);
  return reply.parse(message);
}

async function untilUp(balancer: Haproxy, server: string): Promise<void> {
  while ((await balancer.states()).get(server) !== 'UP') await pause(50);
}

async function measure(agentCount: number, tls: boolean): Promise<boolean> {
  build();
  const databases = await findDatabases({ embedded: false });
  const database = await databases.create();
  if (database.url === null) throw new Error('two gateways need a real Postgres');
  const folder = await mkdtemp(join(tmpdir(), 'aegis-storm-'));
  const env = {
    ...{ DATABASE_URL: database.url, REDIS_URL: process.env.TEST_REDIS_URL ?? 'redis://127.0.0.1:6379' },
    ...{ DATA_DIR: folder, ADMIN_TOKEN: randomBytes(24).toString('base64url') },
  };
  const sql = postgres(database.url, { max: 1, onnotice: () => {} });
  const first = await startGateway(env);
  const port = await freePort();
  const balancer = await startHaproxy([first.address, `127.0.0.1:${port}`], { tls });
  const certificate = join(folder, 'balancer.pem');
  await writeFile(certificate, balancer.certificate);
  const agents = fork(join(projectRoot, 'bench/load/returning-agents.ts'), {
    ...{ cwd: projectRoot, execArgv: ['--import', 'tsx'], env: { ...process.env, NODE_EXTRA_CA_CERTS: certificate } },
  });
  watch(agents);
  let second: Killable | null = null;
  try {
    const url = `${tls ? 'wss' : 'ws'}://127.0.0.1:${balancer.port}/ws/agent`;
    await ask(agents, { do: 'connect', url, agents: agentCount, atOnce: 32 }, done);
    second = await startOn(port, env);
    await untilUp(balancer, 'ready/gateway-2');

    const killedMs = performance.now();
    process.kill(first.program.pid, 'SIGKILL');
    const back = await ask(agents, { do: 'return' }, returned);
    const { agents: reporting } = await ask(agents, { do: 'report', round: 1 }, done);
    let stored = 0;
    while (stored < reporting && performance.now() - killedMs < storedTimeoutMs) {
      const [row] = await sql<{ count: number }[]>`select count(*)::int as count from events where kind = 'anomalies'`;
      stored = row?.count ?? 0;
      await pause(20);
    }
    const flowingSeconds = (performance.now() - killedMs) / 1_000;
    console.log(machineFacts(databases.description));
    console.log(
      `${agentCount} agents of v1, ${tls ? 'over TLS' : 'in plain text'}, lost their gateway: all back ${back.seconds.toFixed(1)} s after it was killed, of which they wait 7 s; from a dial to its answer ${Math.round(back.medianMs)} ms in the median, ${Math.round(back.slowestMs)} ms at most; an event of each stored after ${flowingSeconds.toFixed(1)} s. ${back.stranded.length} refused or given up, ${reporting - stored} events lost.`,
    );
    for (const [reason, agents] of countsOf(back.stranded.map(reasonOf))) console.error(`${agents} agents: ${reason}`);
    return back.stranded.length === 0 && reporting === agentCount && stored === reporting;
  } finally {
    agents.disconnect();
    await balancer.stop();
    await first.program.stop();
    await second?.program.stop();
    await sql.end();
    await database.drop();
    await rm(folder, { recursive: true, force: true });
  }
}

/** What is said of an agent, but for its name. */
function reasonOf(said: string): string {
  return said.replaceAll(/storm-\d+-\d+:?/g, '').trim();
}

function countsOf(reasons: readonly string[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const reason of reasons) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  return counts;
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, endAllPrograms);
const { values } = parseArgs({
  options: { agents: { type: 'string', default: '5000' }, tls: { type: 'boolean', default: false } },
});
process.exitCode = (await measure(Number(values.agents), values.tls)) ? 0 : 1;
