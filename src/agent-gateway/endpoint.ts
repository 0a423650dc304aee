import type { IncomingMessage } from 'node:http';
import { type ServerOptions, type WebSocket, WebSocketServer } from 'ws';
import type { ErrorCode } from '../errors.ts';
import { shakeHands, type Upgrade } from '../http/upgrade.ts';
import type { GatewayContext } from './context.ts';
import type { Links } from './links.ts';
import { startV1Handshake } from './v1-handshake.ts';
import { startV2Handshake } from './v2-handshake.ts';
import { defaultSessionLimits, v2Subprotocol } from './wire/v2-limits.ts';

/** Where agents come in: upgrade, authentication, and from there on one link each. */
export interface AgentEndpoint {
  /** Takes over an upgrade request on the agents' path. */
  upgrade(upgrade: Upgrade): void;
  /** Sockets that have not authenticated yet. */
  readonly unauthenticated: number;
  /** Lets handshakes that are under way come to their end, for a second at most: one that fails costs the agent. */
  close(): Promise<void>;
}

export const maxFrameBytes = 256 * 1024;
/** Go's clients cut a message into pieces as large as their write buffer, 4 KiB where nobody chose, 1 KiB at the least. */
const leastFragmentBytes = 512;
const maxBufferedChunks = 4_096;
/** A peer that does not answer a close is cut off. */
const closeTimeoutMs = 1_000;
const handshakeGraceMs = 1_000;

export function createAgentEndpoint(
  context: GatewayContext,
  links: Links,
  options: { readonly v1: boolean },
): AgentEndpoint {
  const protocols = {
    v1: { server: createSockets(maxFrameBytes), start: startV1Handshake },
    // What is not UTF-8 is malformed like anything else: it must not show sooner than other faults.
    v2: {
      server: createSockets(defaultSessionLimits.maxRecordBytes, { skipUTF8Validation: true }),
      start: startV2Handshake,
    },
  };
  const handshakes = new Set<WebSocket>();
  let isClosing = false;
  let onSettled = () => {};

  function refusalOf(request: IncomingMessage): ErrorCode | null {
    const subprotocol = request.headers['sec-websocket-protocol'];
    // Agents are no browsers; whatever sends an Origin is one (cross-site WebSocket hijacking).
    if (request.headers.origin !== undefined) return 'ORIGIN_REFUSED';
    if (subprotocol !== undefined && subprotocol !== v2Subprotocol) return 'PROTOCOL_UNSUPPORTED';
    if (isClosing) return 'UNAVAILABLE';
    return options.v1 || subprotocol === v2Subprotocol ? null : 'PROTOCOL_V1_OFF';
  }

  function greet(socket: WebSocket, upgrade: Upgrade, start: typeof startV1Handshake): void {
    handshakes.add(socket);
    start(socket, upgrade, context, links, () => {
      handshakes.delete(socket);
      onSettled();
    });
  }

  function allSettled(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const cancel = context.clock.after(timeoutMs, resolve);
      onSettled = () => {
        if (handshakes.size > 0) return;
        cancel();
        resolve();
      };
      onSettled();
    });
  }

  return {
    upgrade(upgrade) {
      const refusal = refusalOf(upgrade.request);
      if (refusal) return upgrade.refuse(refusal);
      const isV2 = upgrade.request.headers['sec-websocket-protocol'] === v2Subprotocol;
      const { server, start } = protocols[isV2 ? 'v2' : 'v1'];
      shakeHands(server, upgrade, (webSocket) => greet(webSocket, upgrade, start));
    },
    get unauthenticated() {
      return handshakes.size;
    },
    async close() {
      await allSettled(handshakeGraceMs);
      isClosing = true;
      for (const socket of handshakes) socket.terminate();
      for (const { server } of Object.values(protocols)) server.close();
    },
  };
}

function createSockets(maxPayload: number, options: ServerOptions = {}): WebSocketServer {
  // An option of ws that its types leave out.
  const timing = { closeTimeout: closeTimeoutMs };
  return new WebSocketServer({
    ...timing,
    ...options,
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload,
    maxFragments: maxPayload / leastFragmentBytes,
    maxBufferedChunks,
  });
}
