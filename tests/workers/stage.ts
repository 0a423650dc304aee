import { randomBytes } from 'node:crypto';
import { createConnection } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { z } from 'zod';
import { startV1Agent, type V1Agent } from '../../src/agent-client/index.ts';
import { AgentDocument, type ConsumerClient, createConsumerClient } from '../../src/consumer-client/client.ts';
import { launch, type Run } from '../commands/launch.ts';
import { reapAtTheEnd } from '../faults/reaper.ts';
import { createTestDatabase } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { type Deployment, deploy } from './deployment.ts';

/** A primary and its workers as an operator runs them: built, in processes of their own, on a real Postgres. */
export interface WorkersStage {
  readonly deployment: Deployment;
  readonly run: Run;
  /** `http://127.0.0.1:<port>` */
  readonly url: string;
  readonly client: ConsumerClient;
  /** Process ids of workers that served, in the order in which they began to. */
  readonly served: readonly number[];
  /** What was logged under this text, each with its fields. */
  logged(text: string): Record<string, unknown>[];
  /** Asks REST, each time over a connection of its own. */
  get(path: string): Promise<Response>;
  /** A connected agent of v1, which dials soon after a drop and never again where that is refused. */
  agent(agentId: string): Promise<V1Agent>;
  /** The instance that an agent is connected to; null where it is to none. */
  instanceOf(agentId: string): Promise<string | null>;
  stop(): Promise<void>;
}

const logLine = z.looseObject({ msg: z.string() });
const startTimeoutMs = 60_000;

export async function startWorkers(workers: number, env: Readonly<Record<string, string>> = {}): Promise<WorkersStage> {
  const [database, deployment] = await Promise.all([createTestDatabase(), deploy()]);
  const token = randomBytes(16).toString('hex');
  const running = launch([deployment.entry, 'serve'], {
    ...{ WORKERS: String(workers), WEBSOCKET_PORT: '0', DATA_DIR: deployment.dataDir, ADMIN_TOKEN: token },
    ...{ DATABASE_URL: database.databaseUrl ?? '', ...env },
  });
  const forget = reapAtTheEnd({ process: running.pid, signal: 'SIGKILL' });
  const [, url = ''] = await running.printed(/^ {2}GraphQL +(\S+)\/graphql [\s\S]*^ {2}Database .*\n/m);
  const agents: V1Agent[] = [];
  const client = createConsumerClient({
    url,
    token,
    resume: { firstDelayMs: 20, maxDelayMs: 100, patienceMs: 60_000 },
  });

  function logged(text: string): Record<string, unknown>[] {
    const lines = running.stderr.split('\n').filter((line) => line.startsWith('{') && line.endsWith('}'));
    return lines.map((line) => logLine.parse(JSON.parse(line))).filter(({ msg }) => msg.includes(text));
  }

  return {
    deployment,
    run: running,
    url,
    client,
    get served() {
      return logged('a worker serves').map(({ pid }) => Number(pid));
    },
    logged,
    get: (path) => fetch(`${url}${path}`, { headers: { authorization: `Bearer ${token}`, connection: 'close' } }),
    async agent(agentId) {
      const agent = startV1Agent({
        ...{ url: `${url.replace(/^http/, 'ws')}/ws/agent`, agentId },
        timings: { redialDelayMs: 200 },
      });
      agents.push(agent);
      await agent.ready({ timeoutMs: startTimeoutMs });
      return agent;
    },
    async instanceOf(agentId) {
      const { agent } = await client.query(AgentDocument, { agentId });
      return agent?.connected ? (agent.session?.gatewayInstance ?? null) : null;
    },
    async stop() {
      for (const agent of agents) agent.terminate();
      await client.close();
      running.kill('SIGKILL');
      await running.ended;
      forget();
      await database.drop();
      deployment.remove();
    },
  };
}

/** Dials again and again until it is ended, and gives how often, and why dials failed. */
export function dialAllAlong(url: string): { end(): Promise<{ dials: number; failures: string[] }> } {
  const { hostname, port } = new URL(url);
  const failures: string[] = [];
  let dials = 0;
  let isEnded = false;

  function dial(): Promise<void> {
    return new Promise((resolve) => {
      const socket = createConnection({ host: hostname, port: Number(port) });
      socket.once('connect', () => socket.destroy());
      socket.once('error', (error) => failures.push(error.message));
      socket.once('close', () => resolve());
    });
  }

  async function goOn(): Promise<void> {
    while (!isEnded) {
      await dial();
      dials++;
      await pause(5);
    }
  }

  const going = goOn();
  return {
    async end() {
      isEnded = true;
      await going;
      return { dials, failures };
    },
  };
}

/** Whether a process is there. */
export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

export async function untilGone(pids: readonly number[]): Promise<void> {
  await eventually(() => !pids.some(isAlive), 30_000);
}
