import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { transformFile } from '@swc/core';
import type { BenchDatabases } from './database.ts';
import type { Target } from './load/protocol.ts';
import { projectRoot, startProgram } from './processes.ts';

/** A server under load. */
export interface Server {
  readonly pid: number;
  readonly target: Target;
  stop(): Promise<void>;
}

/** What is measured beside each other, in the order of the report's columns. */
export interface Contestant {
  readonly name: 'floor' | 'gateway' | 'with workers' | 'Go baseline';
  /** Whether it can send anything to its agents. */
  readonly takesCommands: boolean;
  start(): Promise<Server>;
}

const startTimeoutMs = 60_000;

/** The bare `ws` server of `floor-server.ts`. */
export const floor: Contestant = {
  name: 'floor',
  takesCommands: true,
  async start() {
    const program = await startProgram(process.execPath, [await buildFloor()], { NODE_ENV: 'production' });
    const [, port] = await program.line(/listens on port (\d+)/, startTimeoutMs);
    return {
      pid: program.pid,
      target: { ...bareTarget(Number(port)), commandUrl: `http://127.0.0.1:${port}/commands` },
      stop: program.stop,
    };
  },
};

/** How a gateway is started other than in production. */
export interface GatewayStart {
  /** A folder for a CPU profile. */
  readonly cpuProfile?: string | null;
  /** Processes; 1 where absent. */
  readonly workers?: number;
  readonly nodeArguments?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** A gateway under load, with what a benchmark may want to know of it. */
export interface GatewayServer extends Server {
  readonly origin: string;
  readonly token: string;
  /** Null: the embedded engine. */
  readonly databaseUrl: string | null;
}

interface GatewayContestant extends Contestant {
  start(): Promise<GatewayServer>;
}

/** The gateway as it is built and run in production, in so many processes, on a database and a data directory of its own. */
export function gateway(
  databases: BenchDatabases,
  { cpuProfile = null, workers = 1, nodeArguments = [], env = {} }: GatewayStart = {},
): GatewayContestant {
  return {
    name: workers === 1 ? 'gateway' : 'with workers',
    takesCommands: true,
    async start() {
      const database = await databases.create();
      const dataDir = await mkdtemp(join(tmpdir(), 'aegis-bench-'));
      const token = randomBytes(24).toString('base64url');
      const profiling = cpuProfile === null ? [] : ['--cpu-prof', '--cpu-prof-dir', cpuProfile];
      const main = join(projectRoot, 'dist/main.js');
      const program = await startProgram(process.execPath, [...profiling, ...nodeArguments, main], {
        NODE_ENV: 'production',
        WEBSOCKET_PORT: '0',
        WORKERS: String(workers),
        DATA_DIR: dataDir,
        ADMIN_TOKEN: token,
        // What production asks of a new agent, an operator's approval, is not what is measured.
        AGENT_ENROLLMENT: 'open',
        ...(database.url === null ? {} : { DATABASE_URL: database.url }),
        ...env,
      });
      const stop = async () => {
        await program.stop();
        await database.drop();
        await rm(dataDir, { recursive: true, force: true });
      };
      try {
        const [, host] = await program.line(/Agents +ws:\/\/([^/]+)/, startTimeoutMs);
        const target = {
          agentUrl: `ws://${host}/ws/agent`,
          subscriberUrl: `ws://${host}/graphql`,
          graphqlToken: token,
          commandUrl: `http://${host}/graphql`,
        };
        return { pid: program.pid, target, origin: `http://${host}`, token, databaseUrl: database.url, stop };
      } catch (error) {
        await stop();
        throw error;
      }
    },
  };
}

/** The Go program `gobaseline` in `folder`. */
export function goBaseline(folder: string): Contestant {
  return {
    name: 'Go baseline',
    takesCommands: false,
    async start() {
      const port = await freePort();
      const program = await startProgram(join(folder, 'gobaseline'), [`127.0.0.1:${port}`]);
      try {
        await untilAnswers(port);
      } catch (error) {
        await program.stop();
        throw error;
      }
      return { pid: program.pid, target: bareTarget(port), stop: program.stop };
    },
  };
}

/** The floor runs as plain JavaScript, as the gateway does: a loader's memory would come and go while agents' is counted. */
async function buildFloor(): Promise<string> {
  const { code } = await transformFile(join(projectRoot, 'bench/floor-server.ts'), {
    jsc: { parser: { syntax: 'typescript' }, target: 'es2023' },
    module: { type: 'es6' },
  });
  // Under node_modules, where its imports are found.
  const folder = join(projectRoot, 'node_modules/.cache/aegis-bench');
  await mkdir(folder, { recursive: true });
  const file = join(folder, 'floor-server.mjs');
  await writeFile(file, code);
  return file;
}

function bareTarget(port: number): Target {
  const origin = `ws://127.0.0.1:${port}`;
  return { agentUrl: `${origin}/ws/agent`, subscriberUrl: `${origin}/ws/sub`, graphqlToken: null, commandUrl: null };
}

/** A port that was free a moment ago: the Go program wants to be told one. */
function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}

async function untilAnswers(port: number): Promise<void> {
  const deadlineMs = performance.now() + startTimeoutMs;
  for (;;) {
    try {
      await fetch(`http://127.0.0.1:${port}/`);
      return;
    } catch (error) {
      if (performance.now() > deadlineMs) throw new Error(`nothing answers on port ${port}`, { cause: error });
      await pause(20);
    }
  }
}
