import { TLSSocket } from 'node:tls';
import { type ClientOptions, WebSocket } from 'ws';
import type { Connection, ConnectionListener, DialRequest, Transport } from '../transport.ts';

/** More than any gateway says that it sends; what a session's own limit is, the link looks at. */
const maxFrameBytes = 16 * 1024 * 1024;

/** A transport on `ws`. `tls` is what the connection trusts and shows: `ca`, `cert`, `key` and whatever else `node:tls` takes. */
export function wsTransport(tls: ClientOptions = {}): Transport {
  return { dial: (request, listener) => dial(request, listener, tls) };
}

function dial({ url, subprotocol }: DialRequest, listener: ConnectionListener, tls: ClientOptions): Connection {
  const socket = new WebSocket(url, subprotocol, { ...tls, perMessageDeflate: false, maxPayload: maxFrameBytes });
  let lower: TLSSocket | null = null;
  let refusal: { readonly httpStatus: number | null; readonly retryAfterMs: number | null } | null = null;
  let fault: string | null = null;
  socket.once('upgrade', (response) => {
    lower = response.socket instanceof TLSSocket ? response.socket : null;
  });
  socket.once('unexpected-response', (_request, response) => {
    refusal = { httpStatus: response.statusCode ?? null, retryAfterMs: retryAfterMs(response.headers['retry-after']) };
    socket.terminate();
  });
  socket.on('error', (error) => {
    fault ??= error.message;
  });
  socket.once('open', () => listener.opened(socket.protocol));
  socket.on('message', (content, isBinary) => {
    if (content instanceof Buffer) listener.received(isBinary ? content : content.toString('utf8'));
  });
  socket.on('ping', () => listener.heard());
  socket.on('pong', () => listener.heard());
  socket.once('close', (code, reason) => {
    const text = refusal?.httpStatus ? `HTTP ${refusal.httpStatus}` : reason.toString('utf8') || (fault ?? '');
    listener.closed({ code, reason: text, httpStatus: null, retryAfterMs: null, ...refusal });
  });
  return {
    send: (frame) => socket.send(frame),
    ping: () => socket.ping(),
    bufferedBytes: () => socket.bufferedAmount,
    exporter: () => lower && exporterOf(lower),
    close: (code, reason) => socket.close(code, reason),
    terminate: () => socket.terminate(),
  };
}

/** RFC 9266: TLS 1.3 always has it; of TLS 1.2 nobody here can tell whether the master secret is the extended one. */
function exporterOf(socket: TLSSocket): Uint8Array | null {
  if (socket.getProtocol() !== 'TLSv1.3') return null;
  return socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0));
}

function retryAfterMs(header: string | undefined): number | null {
  return header !== undefined && /^\d{1,7}$/.test(header) ? Number(header) * 1_000 : null;
}
