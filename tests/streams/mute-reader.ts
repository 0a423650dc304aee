import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';

/** A subscriber that asks, and from then on takes not one byte from its socket. */
export interface MuteReader {
  /** Asks for the stream. */
  subscribe(query: string, variables?: Readonly<Record<string, unknown>>): void;
  /** Sends the same frame of a WebSocket again and again; resolves when the kernel has taken all of them. */
  frames(count: number, text: string, opcode: 'text' | 'ping'): Promise<void>;
  readonly receivedBytes: number;
  readonly closed: Promise<void>;
  /** Reads again, and throws away what comes. */
  drain(): void;
  cut(): void;
}

export type Transport = 'websocket' | 'sse';

/** Over a bare socket, so that nothing on this side reads ahead. Resolves when the connection stands, idle. */
export async function openMuteReader(transport: Transport, url: string, token: string): Promise<MuteReader> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port) });
  socket.on('error', () => {});
  await new Promise((resolve) => socket.once('connect', resolve));
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  const head = (line: string, headers: Record<string, string>) =>
    `${[line, `host: ${hostname}`, ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`)].join('\r\n')}\r\n\r\n`;
  const frame = (text: string) => socket.write(maskedFrame(text, 'text'));

  if (transport === 'websocket') {
    socket.write(
      head('GET /graphql HTTP/1.1', {
        ...{ connection: 'upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' },
        'sec-websocket-key': randomBytes(16).toString('base64'),
        'sec-websocket-protocol': 'graphql-transport-ws',
      }),
    );
    await untilSaid(socket, '101 Switching');
    frame(JSON.stringify({ type: 'connection_init', payload: { authorization: `Bearer ${token}` } }));
    await untilSaid(socket, 'connection_ack');
  }

  return {
    subscribe(query, variables = {}) {
      if (transport === 'websocket') {
        frame(JSON.stringify({ id: '1', type: 'subscribe', payload: { query, variables } }));
        return;
      }
      const body = JSON.stringify({ query, variables });
      const headers = {
        authorization: `Bearer ${token}`,
        accept: 'text/event-stream',
        'content-type': 'application/json',
      };
      socket.write(
        head('POST /graphql HTTP/1.1', { ...headers, 'content-length': String(Buffer.byteLength(body)) }) + body,
      );
    },
    frames: (count, text, opcode) =>
      new Promise((resolve) => {
        socket.write(Buffer.concat(Array(count).fill(maskedFrame(text, opcode))), () => resolve());
      }),
    get receivedBytes() {
      return socket.bytesRead;
    },
    closed,
    drain: () => socket.resume(),
    cut: () => socket.destroy(),
  };
}

/** Reads until the text has come, and then no more. */
function untilSaid(socket: Socket, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let said = '';
    socket.on('close', reject);
    socket.on('data', take);
    socket.resume();
    function take(chunk: Buffer): void {
      said += chunk.toString('latin1');
      if (!said.includes(text)) return;
      socket.off('data', take);
      socket.off('close', reject);
      socket.pause();
      resolve();
    }
  });
}

/** A client's frame (RFC 6455, section 5.2), masked with zeros. */
function maskedFrame(text: string, opcode: 'text' | 'ping'): Buffer {
  const body = Buffer.from(text);
  const first = opcode === 'text' ? 0x81 : 0x89;
  const mask = Buffer.alloc(4);
  if (body.length < 126) return Buffer.concat([Buffer.from([first, 0x80 | body.length]), mask, body]);
  const length = Buffer.alloc(10);
  length.writeUInt8(first, 0);
  length.writeUInt8(0x80 | 127, 1);
  length.writeBigUInt64BE(BigInt(body.length), 2);
  return Buffer.concat([length, mask, body]);
}
