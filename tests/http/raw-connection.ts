import { connect, type Socket } from 'node:net';

/** A TCP connection on which a test says what it wants, byte for byte. */
export interface RawConnection {
  readonly socket: Socket;
  /** What has come so far, as Latin-1. */
  readonly received: string;
  send(bytes: string | Buffer): void;
  /** Resolves with all that came once the other side has closed or cut the connection. */
  readonly closed: Promise<string>;
}

export function openRaw(url: string, bytes: string | Buffer = ''): RawConnection {
  const { port, hostname } = new URL(url);
  const socket = connect(Number(port), hostname);
  let received = '';
  socket.on('data', (chunk) => {
    received += chunk.toString('latin1');
  });
  socket.on('error', () => {});
  if (bytes.length > 0) socket.write(bytes);
  return {
    socket,
    get received() {
      return received;
    },
    send: (more) => void socket.write(more),
    closed: new Promise((resolve) => socket.once('close', () => resolve(received))),
  };
}

export interface RawAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** Sends a request and reads answers until the other side closes, so let the request say `connection: close`. */
export async function askRaw(url: string, request: string | Buffer): Promise<RawAnswer[]> {
  return answersIn(await openRaw(url, request).closed);
}

/** The answers in a text; bodies by their `content-length`, or to the end. */
export function answersIn(text: string): RawAnswer[] {
  const answers: RawAnswer[] = [];
  let rest = text;
  while (rest !== '') {
    const end = rest.indexOf('\r\n\r\n');
    const [, status] = /^HTTP\/1\.1 (\d{3}) [^\r\n]*\r\n/.exec(rest) ?? [];
    if (end === -1 || status === undefined) throw new Error(`no answer: ${JSON.stringify(rest.slice(0, 500))}`);
    const headers = new Headers();
    for (const line of rest.slice(0, end).split('\r\n').slice(1)) {
      const colon = line.indexOf(':');
      headers.append(line.slice(0, colon), line.slice(colon + 1).trim());
    }
    const length = Number(headers.get('content-length') ?? rest.length);
    const body = rest.slice(end + 4, end + 4 + length);
    answers.push({ status: Number(status), headers, body });
    rest = rest.slice(end + 4 + length);
  }
  return answers;
}
