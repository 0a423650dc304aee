import { once } from 'node:events';
import { afterEach, describe, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { type BareServer, startBareServer } from './bare-server.ts';
import { answersIn, openRaw, type RawConnection } from './raw-connection.ts';

/** So much less than in service, and so much longer than what must be quicker. */
const patience = { headersMs: 500, requestMs: 1_000, keepAliveMs: 500, idleMs: 1_000 };
const neverMs = 60_000;

let bare: BareServer;
const dripping = new Set<NodeJS.Timeout>();
afterEach(async () => {
  for (const timer of dripping) clearInterval(timer);
  dripping.clear();
  await bare.server.close(0);
});

/** Sends one byte after the other, as long as the connection takes them. */
function drip(connection: RawConnection, bytes: string): void {
  let sent = 0;
  const timer = setInterval(() => connection.send(bytes[sent++ % bytes.length] ?? ''), 20);
  dripping.add(timer);
  void connection.closed.then(() => clearInterval(timer));
}

describe('a peer that is slow', () => {
  it.each([
    ['says nothing', '', ''],
    ['sends its headers byte by byte', 'GET / HTTP/1.1\r\nhost: g\r\n', 'x: y\r\n'],
    [
      'sends its headers byte by byte after another request',
      'GET / HTTP/1.1\r\nhost: g\r\n\r\nGET / HTTP/1.1\r\n',
      'x: y\r\n',
    ],
  ])('is cut off where it %s', async (_what, head, rest) => {
    bare = await startBareServer(
      {},
      { patience: { ...patience, requestMs: neverMs, keepAliveMs: neverMs, idleMs: neverMs } },
    );
    const connection = openRaw(bare.url, head);
    if (rest !== '') drip(connection, rest);
    expect(answersIn(await connection.closed).at(-1)).toMatchObject({ status: 408 });
  });

  it('is cut off where it sends its body byte by byte', async () => {
    bare = await startBareServer({}, { patience: { ...patience, keepAliveMs: neverMs, idleMs: neverMs } });
    const connection = openRaw(bare.url, 'POST / HTTP/1.1\r\nhost: g\r\ncontent-length: 1000000\r\n\r\n');
    drip(connection, ' ');
    expect(answersIn(await connection.closed)).toMatchObject([{ status: 408 }]);
  });

  it('is cut off where it holds a connection and asks nothing more', async () => {
    bare = await startBareServer(
      {},
      { patience: { ...patience, headersMs: neverMs, requestMs: neverMs, idleMs: neverMs } },
    );
    const connection = openRaw(bare.url, 'GET / HTTP/1.1\r\nhost: g\r\n\r\n');
    expect(answersIn(await connection.closed)).toMatchObject([{ status: 200 }]);
  });

  it('is cut off where it never reads its answer', async () => {
    let isClosed = false;
    bare = await startBareServer(
      {
        graphql: {
          handle(_request, response) {
            response.once('close', () => (isClosed = true));
            response.end(Buffer.alloc(64 * 1024 * 1024));
          },
          upgrade: () => {},
        },
      },
      { patience: { ...patience, headersMs: neverMs, requestMs: neverMs, keepAliveMs: neverMs } },
    );
    const connection = openRaw(bare.url, 'GET /graphql HTTP/1.1\r\nhost: g\r\n\r\n');
    connection.socket.pause();
    await eventually(() => isClosed, 15_000);
    connection.socket.destroy();
  });

  it('is waited for where it is slow and comes to an end', async () => {
    bare = await startBareServer(
      {},
      { patience: { headersMs: neverMs, requestMs: neverMs, keepAliveMs: neverMs, idleMs: neverMs } },
    );
    const connection = openRaw(bare.url);
    for (const byte of 'POST / HTTP/1.1\r\nhost: g\r\nconnection: close\r\ncontent-length: 2\r\n\r\nxy') {
      connection.send(byte);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(answersIn(await connection.closed)).toMatchObject([{ status: 200, body: '/ got xy' }]);
  });
});

describe('what others do', () => {
  it('keeps nobody from being served', async () => {
    bare = await startBareServer(
      {},
      { patience: { ...patience, headersMs: neverMs, requestMs: neverMs, idleMs: neverMs } },
    );
    const slow = Array.from({ length: 200 }, () => openRaw(bare.url, 'GET / HTTP/1.1\r\nhost: '));
    await Promise.all(slow.map(({ socket }) => once(socket, 'connect')));
    expect((await fetch(`${bare.url}/asked`)).status).toBe(200);
    for (const { socket } of slow) socket.destroy();
  });
});
