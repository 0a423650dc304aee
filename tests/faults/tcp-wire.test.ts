import { once } from 'node:events';
import { createConnection, createServer, type Socket } from 'node:net';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { startTcpWire, type TcpWire } from './tcp-wire.ts';

let dialled: Socket[];
let port: number;
let wire: TcpWire;
const closes: (() => void)[] = [];

beforeEach(async () => {
  dialled = [];
  const server = createServer((socket) => {
    socket.on('error', () => {});
    dialled.push(socket);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  port = typeof address === 'object' && address ? address.port : 0;
  wire = await startTcpWire({ targets: () => [port], whenNoneAnswers: 'wait' });
  closes.push(() => server.close());
});
afterEach(async () => {
  for (const socket of dialled) socket.destroy();
  for (const close of closes.splice(0)) close();
  await wire.close();
});

/** A connection through the wire, both ends of it. */
async function connect(): Promise<{ near: Socket; far: Socket }> {
  const near = createConnection({ host: '127.0.0.1', port: wire.port });
  near.on('error', () => {});
  closes.push(() => near.destroy());
  near.write('hello');
  for (;;) {
    const far = dialled.at(-1);
    if (far) {
      expect(String((await once(far, 'data'))[0])).toBe('hello');
      return { near, far };
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const closed = (socket: Socket) => new Promise<void>((resolve) => socket.once('close', () => resolve()));

it('carries bytes and the end, both ways', async () => {
  const { near, far } = await connect();
  far.write('answer');
  expect(String((await once(near, 'data'))[0])).toBe('answer');
  expect(wire.connections).toBe(1);
  near.end();
  await once(far, 'end');
});

it('keeps the order of what it delays', async () => {
  const { near, far } = await connect();
  wire.delay(30);
  near.write('one');
  wire.delay(0);
  near.write('two');
  let text = '';
  for await (const chunk of far) {
    text += chunk;
    if (text.length === 6) break;
  }
  expect(text).toBe('onetwo');
});

it('delivers what it held once it is released', async () => {
  const { near, far } = await connect();
  const heard: string[] = [];
  far.on('data', (chunk) => heard.push(String(chunk)));
  wire.hold();
  near.write('late');
  near.end();
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(heard).toEqual([]);
  wire.release();
  await once(far, 'end');
  expect(heard).toEqual(['late']);
});

it('resets both ends', async () => {
  const { near, far } = await connect();
  const gone = Promise.all([closed(near), closed(far)]);
  wire.reset();
  await gone;
  expect(wire.connections).toBe(0);
});

it.each([
  ['dialling', 'far'],
  ['dialled', 'near'],
] as const)('leaves the %s end a socket that nobody answers', async (kept, lost) => {
  const ends = await connect();
  const left = lost === 'far' ? ends.near : ends.far;
  const gone = closed(ends[lost]);
  wire.strand(kept);
  await gone;
  left.write('is anybody there?');
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(left.readyState).toBe('open');
});

it('has who dials wait until somebody answers', async () => {
  let isUp = false;
  const balancer = await startTcpWire({ targets: () => (isUp ? [port] : []), whenNoneAnswers: 'wait' });
  const waiting = createConnection({ host: '127.0.0.1', port: balancer.port });
  waiting.write('hello');
  await once(waiting, 'connect');
  isUp = true;
  while (dialled.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  waiting.destroy();
  await balancer.close();
});
