import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePort } from '../faults/free-port.ts';
import { reapAtTheEnd } from '../faults/reaper.ts';
import { makeCertificate } from '../support/certificates.ts';
import { eventually } from '../support/eventually.ts';

/** The balancer of `deploy/`, as a process of its own on a free port. */
export interface Haproxy {
  readonly port: number;
  /** The certificate that it shows, which is its own issuer. */
  readonly certificate: string;
  /** What it says of its servers: `ready/gateway-1` and the like, `UP`, `NOLB` (drained) or `DOWN`. */
  states(): Promise<ReadonlyMap<string, string>>;
  stop(): Promise<void>;
}

export const configurationFile = fileURLToPath(new URL('../../deploy/haproxy/haproxy.cfg', import.meta.url));

/** Whether there is a haproxy to run. In CI there must be. */
export function hasHaproxy(): boolean {
  try {
    execFileSync('haproxy', ['-v'], { stdio: 'ignore' });
    return true;
  } catch {
    if (process.env.CI) throw new Error('haproxy is not installed, and CI runs the real one');
    process.stderr.write('haproxy is not installed: what goes through it is not tested.\n');
    return false;
  }
}

/** The configuration of `deploy/`, with nothing but addresses and the certificate's place changed. */
export function configurationFor(places: {
  readonly listen: string;
  readonly certificatePath: string;
  /** In place of `gateway-1:8080` and on. */
  readonly gateways: readonly string[];
}): string {
  const text = readFileSync(configurationFile, 'utf8')
    .replaceAll('bind :443 ', `bind ${places.listen} `)
    .replaceAll('/etc/haproxy/tls/tls.crt', places.certificatePath);
  return places.gateways.reduce(
    (sofar, address, index) => sofar.replaceAll(`gateway-${index + 1}:8080`, address),
    text,
  );
}

/** Gives what haproxy has to say about a configuration that it would take. Throws with it where it would not. */
export function checkConfiguration(file: string): string {
  const { status, stdout, stderr } = spawnSync('haproxy', ['-c', '-q', '-f', file], { encoding: 'utf8' });
  const said = `${stdout}${stderr}`;
  if (status !== 0) throw new Error(said);
  return said;
}

/** Starts it in front of these gateways (`host:port`), with TLS unless that is false; resolves when it takes connections. */
export async function startHaproxy(
  gateways: readonly string[],
  options: { readonly tls?: boolean } = {},
): Promise<Haproxy> {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'aegis-haproxy-'));
  const forgetFolder = reapAtTheEnd({ folder });
  const { certPem, keyPem } = makeCertificate('balancer.example');
  const certificatePath = join(folder, 'tls.crt');
  writeFileSync(certificatePath, certPem);
  writeFileSync(join(folder, 'tls.key'), keyPem);
  const file = join(folder, 'haproxy.cfg');
  const socket = join(folder, 'stats');
  // Beside the configuration that is tested: where a test asks how it sees its servers.
  const asked = join(folder, 'asked.cfg');
  const configuration = configurationFor({ listen: `127.0.0.1:${port}`, certificatePath, gateways });
  writeFileSync(file, options.tls === false ? configuration.replace(/ ssl crt .*$/m, '') : configuration);
  writeFileSync(asked, `global\n    stats socket ${socket}\n`);
  checkConfiguration(file);

  const child = spawn('haproxy', ['-db', '-f', file, '-f', asked], { stdio: ['ignore', 'pipe', 'pipe'] });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (log = (log + text).slice(-20_000)));
  const forget = reapAtTheEnd({ process: pidOf(child), signal: 'SIGKILL' });
  const exited = once(child, 'exit').then(forget);
  await eventually(async () => {
    if (child.exitCode !== null) throw new Error(`haproxy ended with ${child.exitCode}:\n${log}`);
    return answers(port);
  });

  return {
    port,
    certificate: certPem,
    async states() {
      const rows = (await ask(socket, 'show stat -1 4 -1')).split('\n').map((row) => row.split(','));
      const column = rows[0]?.indexOf('status') ?? -1;
      return new Map(rows.slice(1).flatMap((row) => (row[1] ? [[`${row[0]}/${row[1]}`, row[column] ?? '']] : [])));
    },
    async stop() {
      child.kill('SIGKILL');
      await exited;
      rmSync(folder, { recursive: true, force: true });
      forgetFolder();
    },
  };
}

function pidOf({ pid }: ChildProcess): number {
  if (pid === undefined) throw new Error('haproxy could not be started');
  return pid;
}

function answers(port: number): Promise<boolean> {
  const socket = createConnection({ host: '127.0.0.1', port });
  return new Promise<boolean>((resolve) => {
    socket.once('connect', () => resolve(true));
    socket.once('error', () => resolve(false));
  }).finally(() => socket.destroy());
}

async function ask(path: string, command: string): Promise<string> {
  const socket = createConnection({ path });
  socket.end(`${command}\n`);
  let answer = '';
  for await (const part of socket) answer += part;
  return answer;
}
