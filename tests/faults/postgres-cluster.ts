import { execFile } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { freePort } from './free-port.ts';
import { reapAtTheEnd } from './reaper.ts';
import { mountSmallDisk, type SmallDisk } from './small-disk.ts';

/** A Postgres of the test's own, which it may stop as it likes. It fsyncs, as one in production does. */
export interface PostgresCluster {
  /** Of the database `postgres`, as superuser; the same after a restart. */
  readonly url: string;
  readonly port: number;
  /** The server's first process. */
  readonly pid: number;
  /** Resolves when it takes connections, after recovery where it has crashed. */
  start(): Promise<void>;
  /** `immediate` is a crash: nothing is flushed, nobody is told. `fast` rolls back and shuts down in order. */
  stop(mode: 'fast' | 'immediate'): Promise<void>;
  /** Where it has a disk of its own, which can be filled. */
  readonly disk: SmallDisk | null;
  /** Resolves when it takes connections: where it ended by itself, it is started. */
  comeBack(): Promise<void>;
  /** Stops it where it runs, and removes its files. */
  drop(): Promise<void>;
}

const run = promisify(execFile);
const packages = '/usr/lib/postgresql';
const startTimeoutSeconds = 60;
const comeBackLookMs = 100;

/** Where the newest installed Postgres keeps its programs, as Debian lays them out; null where there is none. */
export function postgresPrograms(): string | null {
  if (!existsSync(packages)) return null;
  const versions = readdirSync(packages).filter((version) => existsSync(join(packages, version, 'bin/initdb')));
  const [newest] = versions.sort((a, b) => Number(b) - Number(a));
  return newest === undefined ? null : join(packages, newest, 'bin');
}

/**
 * Makes a cluster in a folder of its own, or on a disk of that size, and starts it. Throws where no Postgres is installed, or
 * nothing may be mounted.
 */
export async function createPostgresCluster(options: { readonly diskMiB?: number } = {}): Promise<PostgresCluster> {
  const programs = postgresPrograms();
  if (programs === null) throw new Error(`no Postgres is installed in ${packages}`);
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'aegis-postgres-'));
  const forgetFolder = reapAtTheEnd({ folder });
  const files = join(folder, 'data');
  mkdirSync(files);
  const disk = options.diskMiB === undefined ? null : mountSmallDisk(files, options.diskMiB);
  // Postgres refuses to run as root.
  const owner = process.getuid?.() === 0 ? await postgresUser() : null;
  chmodSync(folder, 0o711);
  if (owner) chownSync(files, owner.uid, owner.gid);
  const program = (name: string, ...args: string[]) =>
    run(join(programs, name), ['-D', files, ...args], { ...owner, cwd: '/' });
  const settings = [
    `port=${port}`,
    'listen_addresses=127.0.0.1',
    `unix_socket_directories=${files}`,
    'fsync=on',
    'synchronous_commit=on',
    'shared_buffers=64MB',
    'max_connections=50',
    ...(disk ? ['min_wal_size=32MB', 'max_wal_size=64MB'] : []),
  ].map((setting) => `-c ${setting}`);
  let running: { readonly pid: number; readonly forget: () => void } | null = null;

  async function stop(mode: 'fast' | 'immediate'): Promise<void> {
    await program('pg_ctl', '-m', mode, '-w', 'stop');
    running?.forget();
    running = null;
  }

  const pidFile = join(files, 'postmaster.pid');
  const isAnswering = () =>
    run(join(programs, 'pg_isready'), ['-q', '-h', '127.0.0.1', '-p', String(port)]).then(
      () => true,
      () => false,
    );

  const cluster: PostgresCluster = {
    ...{ port, disk },
    url: `postgres://postgres@127.0.0.1:${port}/postgres`,
    get pid() {
      if (!running) throw new Error('the cluster is stopped');
      return running.pid;
    },
    async start() {
      const timeout = String(startTimeoutSeconds);
      await program('pg_ctl', '-o', settings.join(' '), '-l', join(files, 'log'), '-t', timeout, '-w', 'start');
      const [pid] = readFileSync(pidFile, 'utf8').split('\n');
      // SIGQUIT is what an immediate stop sends.
      running = { pid: Number(pid), forget: reapAtTheEnd({ process: Number(pid), signal: 'SIGQUIT' }) };
    },
    stop,
    async comeBack() {
      while (!(await isAnswering())) {
        // It removes the file when it ends, however badly.
        if (!existsSync(pidFile)) {
          running?.forget();
          return cluster.start();
        }
        await pause(comeBackLookMs);
      }
    },
    async drop() {
      if (running) await stop('immediate');
      disk?.remove();
      rmSync(folder, { recursive: true, force: true });
      forgetFolder();
    },
  };
  await program('initdb', '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-sync');
  await cluster.start();
  return cluster;
}

async function postgresUser(): Promise<{ readonly uid: number; readonly gid: number }> {
  const [uid, gid] = await Promise.all(['-u', '-g'].map(async (flag) => (await run('id', [flag, 'postgres'])).stdout));
  return { uid: Number(uid), gid: Number(gid) };
}
