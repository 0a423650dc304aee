import { once } from 'node:events';
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Duplex } from 'node:stream';
import { Worker } from 'node:worker_threads';

/** An embedded Postgres that speaks the Postgres protocol over `connect()`, one connection at a time. */
export interface EmbeddedDatabase {
  /** A stream for postgres.js's `socket` option. */
  connect(): Duplex;
  /** Resolves when the engine has written everything and has stopped. */
  close(): Promise<void>;
}

/** The directory is open in another process. */
export class DatabaseLockedError extends Error {
  constructor(lockFile: string, pid: number) {
    super(`The embedded database is in use by process ${pid} (${lockFile})`);
    this.name = 'DatabaseLockedError';
  }
}

/**
 * Starts the embedded Postgres in a worker thread, in `dataDir/postgres`, or in memory where `dataDir` is `memory`.
 * PGlite itself lets two processes open one directory and ruin it, so a lock file of our own stands beside it.
 * Throws DatabaseLockedError.
 */
export async function startEmbeddedDatabase(dataDir: string): Promise<EmbeddedDatabase> {
  const unlock = dataDir === 'memory' ? () => {} : lock(dataDir);
  let worker: Worker;
  try {
    worker = new Worker(new URL('./embedded-worker.js', import.meta.url), {
      workerData: dataDir === 'memory' ? null : join(dataDir, 'postgres'),
    });
    await once(worker, 'message');
  } catch (error) {
    unlock();
    throw new Error('The embedded database does not start', { cause: error });
  }
  const exited = new Promise<void>((done) => worker.once('exit', () => done()));
  return {
    connect: () => connection(worker),
    async close() {
      worker.postMessage('close');
      await exited;
      unlock();
    },
  };
}

function connection(worker: Worker): Duplex {
  const framer = new MessageFramer();
  const stream = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      const whole = framer.push(chunk);
      if (whole) worker.postMessage(whole);
      done();
    },
    destroy(error, done) {
      worker.off('message', receive);
      worker.off('exit', end);
      done(error);
    },
  });
  const receive = (answer: unknown) => {
    if (answer instanceof Uint8Array && answer.length > 0)
      stream.push(Buffer.from(answer.buffer, answer.byteOffset, answer.byteLength));
  };
  const end = () => stream.destroy(new Error('The embedded database has stopped'));
  worker.on('message', receive);
  worker.once('exit', end);
  stream.once('finish', () => stream.destroy());
  // postgres.js looks at this before it says goodbye on a socket.
  Object.defineProperty(stream, 'readyState', { get: () => (stream.destroyed ? 'closed' : 'open') });
  return stream;
}

/**
 * Cuts what a Postgres client writes into whole protocol messages: the engine takes nothing less. The first message has no
 * type byte (PostgreSQL protocol 3.0, "Message Formats": StartupMessage).
 */
class MessageFramer {
  #started = false;
  #rest: Buffer = Buffer.alloc(0);

  /** The whole messages among what has come so far, together, or null. */
  push(chunk: Buffer): Uint8Array | null {
    const bytes = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk;
    let end = 0;
    for (;;) {
      const header = this.#started ? 1 : 0;
      if (bytes.length < end + header + 4) break;
      const next = end + header + bytes.readUInt32BE(end + header);
      if (bytes.length < next) break;
      end = next;
      this.#started = true;
    }
    this.#rest = Buffer.from(bytes.subarray(end));
    return end > 0 ? new Uint8Array(bytes.subarray(0, end)) : null;
  }
}

/** Locks that this process holds: its own pid in a lock file is a left-over otherwise. */
const heldLocks = new Set<string>();

function lock(dataDir: string): () => void {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const file = resolve(dataDir, 'postgres.lock');
  if (heldLocks.has(file)) throw new DatabaseLockedError(file, process.pid);
  // Written first and linked then, so that whoever finds a lock file finds the pid in it.
  const own = `${file}.${process.pid}`;
  writeFileSync(own, String(process.pid), { mode: 0o600 });
  try {
    while (!linked(own, file)) {
      const holder = holderOf(file);
      if (isRunning(Number(holder))) throw new DatabaseLockedError(file, Number(holder));
      removeLeftOver(file, own, holder);
    }
  } finally {
    rmSync(own, { force: true });
  }
  heldLocks.add(file);
  return () => {
    heldLocks.delete(file);
    rmSync(file, { force: true });
  };
}

/** Whether `file` is now another name of `own`; false where there is such a file already. */
function linked(own: string, file: string): boolean {
  try {
    linkSync(own, file);
    return true;
  } catch (error) {
    if (isCode(error, 'EEXIST')) return false;
    throw error;
  }
}

/** Takes away the lock of a process that died: aside first, lest it be the one that another process has just put there. */
function removeLeftOver(file: string, own: string, holder: string): void {
  const aside = `${own}.left-over`;
  try {
    renameSync(file, aside);
  } catch (error) {
    if (isCode(error, 'ENOENT')) return;
    throw error;
  }
  if (holderOf(aside) !== holder) linked(aside, file);
  rmSync(aside, { force: true });
}

/** What a lock file says, a pid as a rule; nothing where it has gone meanwhile. */
function holderOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (isCode(error, 'ENOENT')) return '';
    throw error;
  }
}

function isRunning(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  // After a restart of the host (or of a container) the same pid may be ours; `heldLocks` knows what really is.
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return isCode(error, 'EPERM');
  }
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
