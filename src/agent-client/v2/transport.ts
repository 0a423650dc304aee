/** How an agent reaches a gateway: frames over something like a WebSocket. */
export interface Transport {
  /** Begins to connect, and tells the listener what comes of it. Throws where there is no connecting to such an address. */
  dial(request: DialRequest, listener: ConnectionListener): Connection;
}

export interface DialRequest {
  readonly url: string;
  readonly subprotocol: string;
}

export interface ConnectionListener {
  /** The upgrade is done. `subprotocol` is what the gateway chose, empty where it chose none. */
  opened(subprotocol: string): void;
  received(frame: string | Uint8Array): void;
  /** A ping or a pong: somebody is there. */
  heard(): void;
  /** Called once, and last, also where nothing was ever opened. */
  closed(close: ConnectionClose): void;
}

export interface ConnectionClose {
  /** 1006 where the connection broke, or was never opened. */
  readonly code: number;
  readonly reason: string;
  /** Of the answer to an upgrade that was refused, where it is known. */
  readonly httpStatus: number | null;
  /** `Retry-After` of that answer. */
  readonly retryAfterMs: number | null;
}

export interface Connection {
  send(frame: string | Uint8Array): void;
  /** Sends a ping; null where the transport cannot, as in browsers. */
  readonly ping: (() => void) | null;
  /** Bytes that were handed over and have not left yet. */
  bufferedBytes(): number;
  /** RFC 9266's `tls-exporter` of an open connection, 32 bytes; null where it cannot be known. */
  exporter(): Uint8Array | null;
  close(code: number, reason: string): void;
  /** Ends it without ceremony, where the transport can. */
  terminate(): void;
}

/** The part of a browser's WebSocket that is needed. */
export interface WebSocketLike {
  binaryType: string;
  readonly protocol: string;
  readonly bufferedAmount: number;
  send(frame: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
  addEventListener(type: 'open', listener: () => void): void;
  addEventListener(type: 'message', listener: (event: { readonly data: string | ArrayBuffer }) => void): void;
  addEventListener(type: 'close', listener: (event: { readonly code: number; readonly reason: string }) => void): void;
}

export type WebSocketConstructor = new (url: string, subprotocol: string) => WebSocketLike;

/**
 * A transport on anything that works as a browser's WebSocket does. Such sockets send no pings and tell nothing of a refused
 * upgrade, so the agent asks for a sign of life with a message, and backs off without knowing for how long it was told to.
 */
export function webSocketTransport(webSocket: WebSocketConstructor): Transport {
  return {
    dial({ url, subprotocol }, listener) {
      const socket = new webSocket(url, subprotocol);
      socket.binaryType = 'arraybuffer';
      socket.addEventListener('open', () => listener.opened(socket.protocol));
      socket.addEventListener('message', ({ data }) => {
        listener.received(typeof data === 'string' ? data : new Uint8Array(data));
      });
      socket.addEventListener('close', ({ code, reason }) =>
        listener.closed({ code, reason, httpStatus: null, retryAfterMs: null }),
      );
      return {
        send: (frame) => socket.send(typeof frame === 'string' ? frame : Uint8Array.from(frame)),
        ping: null,
        bufferedBytes: () => socket.bufferedAmount,
        exporter: () => null,
        close: (code, reason) => socket.close(code, reason),
        terminate: () => socket.close(),
      };
    },
  };
}
