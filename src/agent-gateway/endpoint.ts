import type { IncomingMessage } from 'node:http';
import { type WebSocket, WebSocketServer } from 'ws';
import type { ErrorCode } from '../errors.ts';
import { shakeHands, type Upgrade } from '../http/upgrade.ts';
import type { GatewayContext } from './context.ts';
import type { Links } from './links.ts';
import { startV1Handshake } from './v1-handshake.ts';

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
const maxFragments = maxFrameBytes / leastFragmentBytes;
const maxBufferedChunks = 4_096;
/** A peer that does not answer a close is cut off. */
const closeTimeoutMs = 1_000;
const handshakeGraceMs = 1_000;

export function createAgentEndpoint(
  context: GatewayContext,
  links: Links,
  options: { readonly v1: boolean },
): AgentEndpoint {
  // An option of ws that its types leave out.
  const timing = { closeTimeout: closeTimeoutMs };
  const server = new WebSocketServer({
    ...timing,
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: maxFrameBytes,
    maxFragments,
    maxBufferedChunks,
  });
  const handshakes = new Set<WebSocket>();
  let isClosing = false;
  let onSettled = () => {};

  function refusalOf(request: IncomingMessage): ErrorCode | null {
    // Agents are no browsers; whatever sends an Origin is one (cross-site WebSocket hijacking).
    if (request.headers.origin !== undefined) return 'ORIGIN_REFUSED';
    if (request.headers['sec-websocket-protocol'] !== undefined) return 'PROTOCOL_UNSUPPORTED';
    if (isClosing) return 'UNAVAILABLE';
    return options.v1 ? null : 'PROTOCOL_V1_OFF';
  }

  function greet(socket: WebSocket, upgrade: Upgrade): void {
    handshakes.add(socket);
    startV1Handshake(socket, upgrade, context, links, () => {
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
      shakeHands(server, upgrade, (webSocket) => greet(webSocket, upgrade));
    },
    get unauthenticated() {
      return handshakes.size;
    },
    async close() {
      await allSettled(handshakeGraceMs);
      isClosing = true;
      for (const socket of handshakes) socket.terminate();
      server.close();
    },
  };
}
