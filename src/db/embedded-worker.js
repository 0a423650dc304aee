import { parentPort, workerData } from 'node:worker_threads';
import { PGlite } from '@electric-sql/pglite';

// Runs the embedded Postgres off the event loop: PGlite blocks the thread that it runs in. Talks the Postgres protocol in
// whole messages with `embedded.ts`, on the other side of the port. JavaScript, because Node itself loads a worker's
// entry, also where everything else is run from TypeScript source.

const port = parentPort;
if (!port) throw new Error('embedded-worker runs in a worker thread only');

const database = await PGlite.create(typeof workerData === 'string' ? { dataDir: workerData } : {});

/** @type {Promise<unknown>} */
let work = Promise.resolve();

port.on('message', (/** @type {Uint8Array | 'close'} */ message) => {
  work = work.then(async () => {
    if (message === 'close') {
      await database.close();
      port.close();
      return;
    }
    // Errors of Postgres are part of the answer; what throws is the engine itself, and ends the worker.
    port.postMessage(await database.execProtocolRaw(message, { throwOnError: false }));
  });
});
port.postMessage('ready');
