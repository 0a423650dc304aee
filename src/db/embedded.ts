import { once } from 'node:events';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { Worker } from 'node:worker_threads';
import { DatabaseLockedError, lockDirectory } from './directory-lock.ts';

/** An embedded Postgres that speaks the Postgres protocol over `connect()`, one connection at a time. */
export interface EmbeddedDatabase {
  /** A stream for postgres.js's `socket` option. */
  connect(): Duplex;
  /** Resolves when the engine has written everything and has stopped. */
  close(): Promise<void>;
}

export { DatabaseLockedError };

/**
 * Starts the embedded Postgres in a worker thread, in `dataDir/postgres`, or in memory where `dataDir` is `memory`.
 * PGlite itself lets two processes open one directory and ruin it, so a lock file of our own stands beside it.
 * Throws DatabaseLockedError.
 */
export async function startEmbeddedDatabase(dataDir: string): Promise<EmbeddedDatabase> {
  const unlock = dataDir === 'memory' ? () => {} : lockDirectory(dataDir);
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
