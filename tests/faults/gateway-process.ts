import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from './free-port.ts';
import { reapAtTheEnd } from './reaper.ts';

/** A gateway in a process of its own, built and run as in production, that can be killed and comes back on its port. */
export interface GatewayProcess {
  readonly port: number;
  /** `http://127.0.0.1:<port>` */
  readonly url: string;
  /** `ws://127.0.0.1:<port>/ws/agent` */
  readonly agentUrl: string;
  /** The ADMIN_TOKEN. */
  readonly token: string;
  /** The running process. Throws where none runs. */
  readonly pid: number;
  /** What the running process calls itself, once it is ready. */
  readonly instanceId: string | null;
  /** Times that a process ended without being asked to, each with the end of its log. */
  readonly crashes: readonly string[];
  /** The end of the log of all processes so far. */
  readonly log: string;
  /** Begins a process; with these variables as well, where some are given. */
  start(env?: Readonly<Record<string, string>>): void;
  /** Resolves when the running process says that it is ready. Rejects when it ends before. */
  ready(): Promise<void>;
  /** Sends a signal to the running process, and no more than that. */
  signal(name: NodeJS.Signals): void;
  /** Ends the running process with a signal; resolves when it is gone. */
  end(name: 'SIGKILL' | 'SIGTERM'): Promise<void>;
  /** Ends the process where one runs, and removes its files. */
  drop(): Promise<void>;
}

interface Running {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly exited: Promise<unknown>;
  readonly ready: Promise<string>;
}

const entry = fileURLToPath(new URL('../../dist/main.js', import.meta.url));
const keptLogCharacters = 100_000;

/**
 * Prepares a gateway on a free port with these variables and arguments of Node's; nothing runs yet. It is `dist/` that runs: build
 * it first.
 */
export async function prepareGateway(
  env: Readonly<Record<string, string>>,
  nodeArguments: readonly string[] = [],
): Promise<GatewayProcess> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'aegis-gateway-'));
  const forgetFolder = reapAtTheEnd({ folder });
  const token = env.ADMIN_TOKEN ?? randomBytes(16).toString('hex');
  const crashes: string[] = [];
  let log = '';
  let running: Running | null = null;
  let instanceId: string | null = null;

  function current(): Running {
    if (!running) throw new Error(crashes.at(-1) ?? 'no gateway runs');
    return running;
  }

  function launch(more: Readonly<Record<string, string>>): Running {
    const { PATH = '', HOME = '' } = process.env;
    const variables = {
      ...{ PATH, HOME, NODE_ENV: 'production', AGENT_ENROLLMENT: 'open', LOG_LEVEL: 'warn' },
      ...{ WEBSOCKET_PORT: String(port), ADMIN_TOKEN: token, DATA_DIR: join(folder, 'data') },
      ...env,
      ...more,
    };
    const child = spawn(process.execPath, [...nodeArguments, entry], {
      env: variables,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const { pid } = child;
    if (pid === undefined) throw new Error('the gateway could not be started');
    const forget = reapAtTheEnd({ process: pid, signal: 'SIGKILL' });
    const exited = once(child, 'exit');
    const ready = readiness(child, exited);
    const launched = { child, pid, exited, ready };
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text) => {
        log = (log + text).slice(-keptLogCharacters);
      });
    void exited.then(([code, signal]) => {
      forget();
      if (running !== launched) return;
      running = null;
      crashes.push(`the gateway ended by itself with ${code ?? signal}:\n${log.slice(-4_000)}`);
    });
    ready.then(
      (id) => {
        if (running === launched) instanceId = id;
      },
      // Whoever waits for it is told; a process that is killed while it starts has nobody waiting.
      () => {},
    );
    return launched;
  }

  const gateway: GatewayProcess = {
    port,
    url: `http://127.0.0.1:${port}`,
    agentUrl: `ws://127.0.0.1:${port}/ws/agent`,
    token,
    get pid() {
      return current().pid;
    },
    get instanceId() {
      return instanceId;
    },
    crashes,
    get log() {
      return log;
    },
    start(more = {}) {
      if (running) throw new Error('a gateway runs already');
      instanceId = null;
      running = launch(more);
    },
    async ready() {
      await current().ready;
    },
    signal: (name) => void current().child.kill(name),
    async end(name) {
      const { child, exited } = current();
      running = null;
      instanceId = null;
      child.kill(name);
      await exited;
    },
    async drop() {
      if (running) await gateway.end('SIGKILL');
      rmSync(folder, { recursive: true, force: true });
      forgetFolder();
    },
  };
  return gateway;
}

/** Resolves with the instance's id once the process has printed that it is ready. */
function readiness(child: ChildProcess, exited: Promise<unknown>): Promise<string> {
  return new Promise((resolve, reject) => {
    let printed = '';
    child.stdout?.on('data', (text: string) => {
      printed += text;
      const [, id] = /^Aegis gateway (\S+) is ready/m.exec(printed) ?? [];
      if (id !== undefined) resolve(id);
    });
    void exited.then(() => reject(new Error(`the gateway ended before it was ready:\n${printed.slice(-4_000)}`)));
  });
}
