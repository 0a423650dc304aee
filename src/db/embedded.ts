import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
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
  return {
    connect: () => connection(worker),
    async close() {
      worker.postMessage('close');
      await once(worker, 'exit');
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

function lock(dataDir: string): () => void {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const file = join(dataDir, 'postgres.lock');
  for (;;) {
    try {
      const descriptor = openSync(file, 'wx', 0o600);
      writeSync(descriptor, String(process.pid));
      closeSync(descriptor);
      return () => rmSync(file, { force: true });
    } catch (error) {
      if (!isCode(error, 'EEXIST')) throw error;
      const holder = Number(readFileSync(file, 'utf8'));
      if (isRunning(holder)) throw new DatabaseLockedError(file, holder);
      // Left by a process that died.
      rmSync(file, { force: true });
    }
  }
}

function isRunning(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  // After a restart of the host (or of a container) the same pid may be ours.
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
