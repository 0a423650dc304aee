import { createConnection, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { encodeSecureMessage } from '../../src/agent-client/index.ts';
import { eventually } from '../support/eventually.ts';
import type { RawAgent } from './raw-agent.ts';
import { type Stage, startStage } from './stage.ts';

const maxFrameBytes = 256 * 1024;
let stage: Stage;
let bystander: RawAgent;

beforeAll(async () => {
  // What an agent may send in the long run is the subject of another file.
  stage = await startStage({ env: { AGENT_FRAMES_PER_SECOND: '1000000', AGENT_BYTES_PER_SECOND: '1073741824' } });
  bystander = await stage.registered();
});
afterEach(async () => {
  // Whatever was done to the gateway, it hurt nobody else.
  expect(await stage.event(bystander.agentId, bystander.report('status', {}))).toMatchObject({ trusted: true });
});
afterAll(() => stage.stop());

/** A message whose frame has exactly so many bytes. */
function messageOf(agent: RawAgent, bytes: number): { id: string; text: string } {
  const empty = agent.message('logs', {}, { payload: '' });
  const payload = '!'.repeat(bytes - Buffer.byteLength(encodeSecureMessage(empty)));
  return { id: empty.id, text: encodeSecureMessage({ ...empty, payload }) };
}

describe('the size of a frame', () => {
  it('may be 256 KiB', async () => {
    const agent = await stage.registered();
    const { id, text } = messageOf(agent, maxFrameBytes);
    expect(Buffer.byteLength(text)).toBe(maxFrameBytes);
    agent.socket.send(text);
    await stage.event(agent.agentId, id);
  });

  it.each([
    ['a byte more', maxFrameBytes + 1],
    ['a million arrays', 1_000_000],
  ])('may not be %s: the link closes with 1009', async (_what, bytes) => {
    const agent = await stage.registered();
    agent.socket.send('['.repeat(bytes));
    expect(await agent.closed).toMatchObject({ code: 1009 });
    await eventually(async () => (await stage.refused('FRAME_TOO_LARGE')) > 0);
  });

  it('is limited before authentication too', async () => {
    const agent = await stage.dial();
    agent.socket.send('['.repeat(maxFrameBytes + 1));
    expect(await agent.closed).toMatchObject({ code: 1009 });
  });
});

describe('the pieces of a message', () => {
  const sendInPieces = (agent: RawAgent, text: string, pieceBytes: number) => {
    for (let start = 0; start < text.length; start += pieceBytes)
      agent.socket.send(text.slice(start, start + pieceBytes), { fin: start + pieceBytes >= text.length });
  };

  it('may be as small as the write buffer of any agent', async () => {
    const agent = await stage.registered();
    const { id, text } = messageOf(agent, maxFrameBytes);
    sendInPieces(agent, text, 512);
    await stage.event(agent.agentId, id);
  });

  it('may not be many more: the link closes with 1008', async () => {
    const agent = await stage.registered();
    sendInPieces(agent, messageOf(agent, maxFrameBytes).text, 100);
    expect(await agent.closed).toMatchObject({ code: 1008 });
    await eventually(async () => (await stage.refused('FRAME_MALFORMED')) > 0);
  });

  it('of text that is not UTF-8 close the link with 1007', async () => {
    const agent = await stage.registered();
    agent.socket.send(Buffer.from([0x22, 0xff, 0x22]), { binary: false });
    expect(await agent.closed).toMatchObject({ code: 1007 });
    await eventually(async () => (await stage.refused('FRAME_NOT_UTF8')) > 0);
  });
});

describe('a peer that speaks no WebSocket', () => {
  async function raw(text: string | Buffer): Promise<Socket> {
    const { port } = new URL(stage.gateway.url);
    const socket = createConnection(Number(port), '127.0.0.1');
    socket.on('error', () => {});
    socket.write(text);
    return socket;
  }
  const upgrade = [
    'GET /ws/agent HTTP/1.1',
    'Host: gateway',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    '\r\n',
  ].join('\r\n');

  it.each([
    ['garbage', Buffer.concat([Buffer.from(upgrade), Buffer.alloc(1_000, 0xff)])],
    ['no WebSocket version', upgrade.replace('Version: 13', 'Version: 99')],
  ])('is cut off: %s', async (_what, bytes) => {
    const socket = await raw(bytes);
    await new Promise((resolve) => socket.once('close', resolve).resume());
  });
});

describe('many links at once', () => {
  it('that come and go leave nothing behind', async () => {
    const links = await stage.metric('aegis_links');
    const agents = await Promise.all(Array.from({ length: 30 }, () => stage.authenticated()));
    expect(await stage.metric('aegis_links')).toBe(links + 30);
    for (const [index, agent] of agents.entries()) {
      if (index % 3 === 0) agent.terminate();
      else if (index % 3 === 1) agent.socket.close(1000);
      else agent.socket.send('['.repeat(maxFrameBytes + 1));
    }
    await Promise.all(agents.map((agent) => agent.closed));
    await expect.poll(() => stage.metric('aegis_links'), { timeout: 5_000 }).toBe(links);
    await expect
      .poll(() => stage.ask('{ gateway { connectedAgents } }'), { timeout: 5_000 })
      .toEqual({ gateway: { connectedAgents: links } });
  });

  it('an agent that asks on and on and never reads is cut off', async () => {
    const links = await stage.metric('aegis_links');
    const agent = await stage.registered();
    agent.socket.pause();
    const ask = JSON.stringify({
      id: 'r'.repeat(255),
      type: 'request',
      channel: 'agent.registration',
      payload: Buffer.from('{}').toString('base64'),
      timestamp: 1,
    });
    await eventually(async () => {
      for (let count = 0; count < 2_000 && agent.isOpen; count++) agent.socket.send(ask);
      return (await stage.metric('aegis_links')) === links;
    }, 30_000);
  }, 40_000);
});
