import { createConnection, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { SteppedClock } from './clocks.ts';
import { type Stage, startStage } from './stage.ts';
import { wideOpen } from './wide-open.ts';

const clock = new SteppedClock();
let stage: Stage;
beforeAll(async () => {
  stage = await startStage({ clock, admission: wideOpen });
});
afterAll(() => stage.stop());

const socketCount = 2_000;
const sentBytes = 250 * 1024;

/** A text frame of 256 KiB, of which so much has come. */
const halfAFrame = Buffer.concat([
  Buffer.from([0x81, 0xff, 0, 0, 0, 0, 0, 4, 0, 0, 1, 2, 3, 4]),
  Buffer.alloc(sentBytes, 'x'),
]);

/** Upgraded connections that know nothing of WebSocket. */
async function upgraded(protocol: 'v1' | 'v2', count: number): Promise<Socket[]> {
  const { port } = new URL(stage.gateway.url);
  const request = [
    ...['GET /ws/agent HTTP/1.1', 'Host: gateway', 'Connection: Upgrade', 'Upgrade: websocket'],
    ...['Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='],
    ...(protocol === 'v2' ? ['Sec-WebSocket-Protocol: aegis.v2'] : ['X-Agent-ID: flood']),
    ...['', ''],
  ].join('\r\n');
  const sockets: Socket[] = [];
  while (sockets.length < count) {
    const batch = Array.from({ length: Math.min(200, count - sockets.length) }, () =>
      createConnection({ host: '127.0.0.1', port: Number(port) }, function greet(this: Socket) {
        this.write(request);
      }),
    );
    await Promise.all(batch.map((socket) => new Promise((resolve) => socket.once('data', resolve))));
    for (const socket of batch) socket.on('error', () => {});
    sockets.push(...batch);
  }
  return sockets;
}

const heldBytes = () => {
  const { arrayBuffers, heapUsed } = process.memoryUsage();
  return arrayBuffers + heapUsed;
};

describe.each(['v1', 'v2'] as const)('%s sockets that never come to the end of a handshake', (protocol) => {
  it('cost a bounded amount of memory each, hurt nobody, and are gone after five seconds', async () => {
    const agent = await stage.connectedV2();
    const before = heldBytes();
    const sockets = await upgraded(protocol, socketCount);
    const ends = sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve)));
    // A quarter says nothing, a quarter drips, the others send as much as a frame may have, but for its end.
    for (const [index, socket] of sockets.entries()) {
      if (index % 4 === 1) socket.write(halfAFrame.subarray(0, 15));
      if (index % 4 >= 2) socket.write(halfAFrame);
    }
    for (let round = 0; round < 5; round++) {
      for (const [index, socket] of sockets.entries())
        if (index % 4 === 1) socket.write(halfAFrame.subarray(15 + round, 16 + round));
      await agent.untilAcknowledged([agent.say()]);
    }
    expect(await stage.metric('aegis_links_unauthenticated')).toBe(socketCount);
    // Both ends are in this process. Half of 250 KiB would be more.
    expect((heldBytes() - before) / socketCount).toBeLessThan(100 * 1024);
    const messageId = await stage.send(agent.name);
    agent.acknowledge((await agent.next()).id);
    await stage.untilStatus(messageId, 'DELIVERED');

    clock.advance(5_000);
    await Promise.all(ends);
    await eventually(async () => (await stage.metric('aegis_links_unauthenticated')) === 0);
    expect(agent.isOpen).toBe(true);
    agent.terminate();
  }, 60_000);
});
