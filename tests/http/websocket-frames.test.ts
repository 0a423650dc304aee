import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { authenticationRequest, encodeEnvelopedAuthentication } from '../../src/agent-client/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { startTestGateway, type TestGateway } from '../support/gateway.ts';
import { closeFrame, type FrameParts, frame, opcodes, openRawWebSocket, type RawWebSocket } from './raw-websocket.ts';

let gateway: TestGateway;
const sockets: RawWebSocket[] = [];
beforeAll(async () => {
  gateway = await startTestGateway();
});
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.end();
});
afterAll(() => gateway.stop());

/** An endpoint, a text that it answers, with a letter in it that takes two bytes, and what stands in the answer. */
interface Endpoint {
  readonly maxBytes: number;
  open(): Promise<{ readonly socket: RawWebSocket; readonly text: string; readonly answer: string }>;
}

const endpoints: Readonly<Record<string, Endpoint>> = {
  '/ws/agent': {
    maxBytes: 256 * 1024,
    async open() {
      const key = nativeCrypto.generateSigningKey();
      const agentId = `raw-${sockets.length}-${Date.now()}.example.net`;
      const socket = await openRawWebSocket(gateway.agentUrl, [`x-agent-id: ${agentId}`]);
      const request = authenticationRequest({
        ...{ key, agentId, nonce: nativeCrypto.randomBytes(16) },
        timestamp: Math.floor(Date.now() / 1_000),
      });
      socket.send(text(encodeEnvelopedAuthentication('auth_1', request)));
      // From strangers less is read than from agents.
      expect((await socket.next()).payload.toString()).toContain('"channel":"auth"');
      const channel = 'agent.registration';
      return {
        socket,
        text: JSON.stringify({ id: 'ü', type: 'request', channel, payload: '', timestamp: request.timestamp }),
        answer: `"channel":"${channel}"`,
      };
    },
  },
  '/graphql': {
    maxBytes: 1024 * 1024,
    async open() {
      const socket = await openRawWebSocket(gateway.subscriptionUrl, ['sec-websocket-protocol: graphql-transport-ws']);
      return { socket, text: '{"type":"ping","payload":{"letter":"ü"}}', answer: '"type":"pong"' };
    },
  },
};

const half = (parts: Omit<FrameParts, 'fin'>) => frame({ ...parts, fin: false });
const text = (payload: string | Buffer) => frame({ opcode: opcodes.text, payload });

const faults: readonly [what: string, code: number, frames: Buffer[]][] = [
  ...[1, 2, 4, 7].map((reserved): [string, number, Buffer[]] => [
    `reserved bits ${reserved.toString(2)}`,
    1002,
    [frame({ opcode: opcodes.text, reserved, payload: '{}' })],
  ]),
  ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((opcode): [string, number, Buffer[]] => [
    `the reserved opcode ${opcode}`,
    1002,
    [frame({ opcode, payload: '{}' })],
  ]),
  ['a frame that is not masked', 1002, [frame({ opcode: opcodes.text, payload: '{}', isMasked: false })]],
  ['a ping that is not masked', 1002, [frame({ opcode: opcodes.ping, isMasked: false })]],
  ['a continuation of nothing', 1002, [frame({ opcode: opcodes.continuation, payload: '{}' })]],
  ['a message inside another', 1002, [half({ opcode: opcodes.text, payload: '{' }), text('{}')]],
  ['a ping in pieces', 1002, [half({ opcode: opcodes.ping, payload: 'p' })]],
  ['a ping over 125 bytes', 1002, [frame({ opcode: opcodes.ping, payload: 'p'.repeat(126) })]],
  ['a close over 125 bytes', 1002, [closeFrame(1000, 'r'.repeat(124))]],
  ['a length beyond all numbers', 1009, [frame({ opcode: opcodes.text, length: 2n ** 63n - 1n })]],
  ['a length with the highest bit set', 1009, [frame({ opcode: opcodes.text, length: 2n ** 63n })]],
  ['a byte that is no UTF-8', 1007, [text(Buffer.from([0x22, 0xff, 0x22]))]],
  ['an overlong letter', 1007, [text(Buffer.from([0xc0, 0xaf]))]],
  ['half a surrogate pair', 1007, [text(Buffer.from([0xed, 0xa0, 0x80]))]],
  ['a letter beyond Unicode', 1007, [text(Buffer.from([0xf4, 0x90, 0x80, 0x80]))]],
  [
    'a letter that its next piece does not end',
    1007,
    [
      half({ opcode: opcodes.text, payload: Buffer.from([0xc3]) }),
      frame({ opcode: opcodes.continuation, payload: '{}' }),
    ],
  ],
  ['a letter that nothing ends', 1007, [text(Buffer.from([0x7b, 0xc3]))]],
  ['a close of one byte', 1002, [frame({ opcode: opcodes.close, payload: 'x' })]],
  ...[0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535].map((code): [string, number, Buffer[]] => [
    `the close code ${code}`,
    1002,
    [closeFrame(code)],
  ]),
  ['a close whose reason is no UTF-8', 1007, [closeFrame(1000, Buffer.from([0xff]))]],
];

describe.each(Object.entries(endpoints))('on %s', (_path, { open, maxBytes }) => {
  async function opened() {
    const made = await open();
    sockets.push(made.socket);
    return made;
  }

  it.each(faults)('%s closes with %i', async (_what, code, frames) => {
    const { socket } = await opened();
    socket.send(...frames);
    expect(await socket.closeCode()).toBe(code);
  });

  it.each([1000, 1001, 1014, 3000, 4999])('the close code %i comes back', async (code) => {
    const { socket } = await opened();
    socket.send(closeFrame(code, 'r'.repeat(123)));
    expect(await socket.closeCode()).toBe(code);
  });

  it('a close without a code comes back without one', async () => {
    const { socket } = await opened();
    socket.send(frame({ opcode: opcodes.close }));
    expect(await socket.closeCode()).toBe(1005);
  });

  it('compresses nothing, whatever is offered', async () => {
    const { socket } = await opened();
    expect(socket.head.toLowerCase()).not.toContain('sec-websocket-extensions');
  });

  it('a frame that says to be a byte too long closes with 1009 before it has come', async () => {
    const { socket } = await opened();
    socket.send(frame({ opcode: opcodes.text, length: BigInt(maxBytes) + 1n }));
    expect(await socket.closeCode()).toBe(1009);
  });

  it('pieces that are too long together close with 1009', async () => {
    const { socket } = await opened();
    const piece = ' '.repeat(maxBytes / 2);
    socket.send(half({ opcode: opcodes.text, payload: piece }), half({ opcode: opcodes.continuation, payload: piece }));
    socket.send(half({ opcode: opcodes.continuation, payload: ' ' }));
    expect(await socket.closeCode()).toBe(1009);
  });

  it('a message may come in pieces, cut through a letter, with pings in between that are answered first', async () => {
    const { socket, text: whole, answer } = await opened();
    const bytes = Buffer.from(whole);
    const cut = bytes.indexOf(0xbc);
    expect(bytes.subarray(cut - 1, cut + 1).toString()).toBe('ü');
    socket.send(
      half({ opcode: opcodes.text, payload: bytes.subarray(0, cut) }),
      frame({ opcode: opcodes.ping, payload: 'p'.repeat(125) }),
      half({ opcode: opcodes.continuation }),
      frame({ opcode: opcodes.pong, payload: 'of no ping' }),
      frame({ opcode: opcodes.continuation, payload: bytes.subarray(cut) }),
    );
    expect(await socket.next()).toMatchObject({ opcode: opcodes.pong, payload: Buffer.from('p'.repeat(125)) });
    const { opcode, payload } = await socket.next();
    expect(opcode).toBe(opcodes.text);
    expect(payload.toString()).toContain(answer);
  });

  it('pieces of 512 bytes may make up the longest message', async () => {
    const { socket, text: whole, answer } = await opened();
    const bytes = Buffer.alloc(maxBytes, ' ');
    bytes.write(whole);
    const pieces = Array.from({ length: maxBytes / 512 }, (_, index) =>
      frame({
        opcode: index === 0 ? opcodes.text : opcodes.continuation,
        payload: bytes.subarray(index * 512, (index + 1) * 512),
        fin: index === maxBytes / 512 - 1,
      }),
    );
    socket.send(...pieces);
    expect((await socket.next()).payload.toString()).toContain(answer);
  });

  it.each([
    ['of one byte', ' '],
    ['that are empty', ''],
  ])('pieces %s close with 1008 before they fill the memory', async (_what, payload) => {
    const { socket } = await opened();
    const piece = half({ opcode: opcodes.continuation, payload });
    socket.send(half({ opcode: opcodes.text, payload: ' ' }), ...Array.from({ length: maxBytes / 512 }, () => piece));
    expect(await socket.closeCode()).toBe(1008);
  });

  it('a frame that comes byte by byte is read all the same', async () => {
    const { socket, text: whole, answer } = await opened();
    for (const byte of text(whole)) socket.send(Buffer.from([byte]));
    expect((await socket.next()).payload.toString()).toContain(answer);
  });
});
