import { randomBytes } from 'node:crypto';
import { eventually } from '../support/eventually.ts';
import { openRaw } from './raw-connection.ts';

export interface FrameParts {
  readonly opcode: number;
  readonly payload?: string | Buffer;
  /** The last of its message where absent. */
  readonly fin?: boolean;
  /** The three reserved bits, as a number below 8. */
  readonly reserved?: number;
  readonly isMasked?: boolean;
  /** Said to be so long, whatever follows. */
  readonly length?: bigint;
}

export const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** A client's frame (RFC 6455, section 5.2), sound or not. */
export function frame({ opcode, payload = '', fin = true, reserved = 0, isMasked = true, length }: FrameParts): Buffer {
  const body = Buffer.from(payload);
  const said = length ?? BigInt(body.length);
  const maskBit = isMasked ? 0x80 : 0;
  const first = (fin ? 0x80 : 0) | (reserved << 4) | opcode;
  const head = Buffer.alloc(said < 126n ? 2 : said < 65_536n ? 4 : 10);
  head[0] = first;
  if (said < 126n) head[1] = maskBit | Number(said);
  else if (said < 65_536n) {
    head[1] = maskBit | 126;
    head.writeUInt16BE(Number(said), 2);
  } else {
    head[1] = maskBit | 127;
    head.writeBigUInt64BE(said, 2);
  }
  if (!isMasked) return Buffer.concat([head, body]);
  const mask = randomBytes(4);
  return Buffer.concat([head, mask, body.map((byte, index) => byte ^ (mask[index % 4] ?? 0))]);
}

export function closeFrame(code: number, reason: string | Buffer = ''): Buffer {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return frame({ opcode: opcodes.close, payload: Buffer.concat([head, Buffer.from(reason)]) });
}

export interface ReceivedFrame {
  readonly opcode: number;
  readonly payload: Buffer;
}

/** A WebSocket on which a test says what it wants, frame by frame and bit by bit. */
export interface RawWebSocket {
  /** What the upgrade was answered with. */
  readonly head: string;
  send(...frames: Buffer[]): void;
  /** The next frame that has not been taken yet. */
  next(): Promise<ReceivedFrame>;
  /** The code of the close frame; what came before it is left out. */
  closeCode(): Promise<number>;
  end(): void;
}

export async function openRawWebSocket(url: string, headers: readonly string[]): Promise<RawWebSocket> {
  const { pathname } = new URL(url);
  const request = [
    ...[`GET ${pathname} HTTP/1.1`, 'host: gateway', 'connection: upgrade', 'upgrade: websocket'],
    ...['sec-websocket-version: 13', 'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==', ...headers, '\r\n'],
  ].join('\r\n');
  const connection = openRaw(url.replace(/^ws/, 'http'), request);
  const head = await eventually(() => /^HTTP\/1\.1 101 [\s\S]*?\r\n\r\n/.exec(connection.received)?.[0]);
  let taken = head.length;

  function take(): ReceivedFrame | null {
    const bytes = Buffer.from(connection.received.slice(taken), 'latin1');
    if (bytes.length < 2) return null;
    const short = (bytes[1] ?? 0) & 0x7f;
    const headBytes = short < 126 ? 2 : short === 126 ? 4 : 10;
    if (bytes.length < headBytes) return null;
    const length = short < 126 ? short : short === 126 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
    if (bytes.length < headBytes + length) return null;
    taken += headBytes + length;
    return { opcode: (bytes[0] ?? 0) & 0x0f, payload: bytes.subarray(headBytes, headBytes + length) };
  }

  return {
    head,
    send: (...frames) => connection.send(Buffer.concat(frames)),
    next: () => eventually(take),
    async closeCode() {
      for (;;) {
        const { opcode, payload } = await eventually(take);
        if (opcode === opcodes.close) return payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
      }
    },
    end: () => void connection.socket.destroy(),
  };
}
