import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { WebSocket, WebSocketServer } from 'ws';
import type { ErrorCode } from '../errors.ts';
import type { RequestOrigin } from './request-origin.ts';

/** A request for a WebSocket, to be taken over or refused. */
export interface Upgrade {
  readonly request: IncomingMessage;
  readonly socket: Duplex;
  readonly head: Buffer;
  readonly origin: RequestOrigin;
  /** How long the peer had been connected when its request was read, where it is the connection's first; else 0. */
  readonly waitedMs: number;
  /** Answers with the error's HTTP status in place of 101, and ends the connection. */
  refuse(code: ErrorCode, answer?: RefusedUpgrade): void;
}

/** What a refusal says beside its code. */
export interface RefusedUpgrade {
  /** In place of the code's own text; shown to anyone. */
  readonly detail?: string;
  /** When to come back; 1 with every 503 and 429 that does not say. */
  readonly retryAfterSeconds?: number;
}

/** Has `server` shake hands; what is no sound handshake of WebSocket's is refused as anything else is. */
export function shakeHands(server: WebSocketServer, upgrade: Upgrade, opened: (socket: WebSocket) => void): void {
  const refuse = (error: Error) => upgrade.refuse('REQUEST_MALFORMED', { detail: error.message });
  server.once('wsClientError', refuse);
  try {
    server.handleUpgrade(upgrade.request, upgrade.socket, upgrade.head, opened);
  } finally {
    server.off('wsClientError', refuse);
  }
}
