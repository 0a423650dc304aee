import type { IncomingMessage } from 'node:http';
import { type ServerOptions, type WebSocket, WebSocketServer } from 'ws';
import { networkOf } from '../addresses.ts';
import type { ErrorCode } from '../errors.ts';
import { shakeHands, type Upgrade } from '../http/upgrade.ts';
import type { HandshakeEnd } from './address-credit.ts';
import { type AdmissionLimits, createAdmissionGate, type LeavePlace } from './admission-gate.ts';
import type { GatewayContext } from './context.ts';
import { holdUpgrade } from './held-upgrade.ts';
import type { Links } from './links.ts';
import { createRecentKeys } from './recent-keys.ts';
import { startV1Handshake } from './v1-handshake.ts';
import { startV2Handshake } from './v2-handshake.ts';
import { defaultSessionLimits, v2Subprotocol } from './wire/v2-limits.ts';

/** Where agents come in: upgrade, authentication, and from there on one link each. */
export interface AgentEndpoint {
  /** Takes over an upgrade request on the agents' path. */
  upgrade(upgrade: Upgrade): void;
  /** Sockets that have not authenticated yet. */
  readonly unauthenticated: number;
  /** Upgrades of v1 that wait for their turn. */
  readonly held: number;
  /** Addresses that have failed so often that they must wait. */
  readonly exhaustedAddresses: number;
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
const maxAcquaintances = 100_000;
/** v2 agents that find no place come back after this, and longer the more wait; agents add a random time up to as much. */
const leastReturnSeconds = 2;
const mostReturnSeconds = 10;
const heldForEachSecond = 500;

export function createAgentEndpoint(
  context: GatewayContext,
  links: Links,
  options: {
    readonly v1: boolean;
    readonly random: () => number;
    readonly admission?: AdmissionLimits | undefined;
  },
): AgentEndpoint {
  const gate = createAdmissionGate(context.clock, options.admission);
  /** Keys that v1 agents have proved here. */
  const acquaintances = createRecentKeys(maxAcquaintances);
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

  function open(upgrade: Upgrade, protocol: keyof typeof protocols, leave: LeavePlace, mayBeLate = never): void {
    const { server, start } = protocols[protocol];
    let end = leave;
    shakeHands(server, upgrade, (socket) => {
      end = () => {};
      handshakes.add(socket);
      const settled = (outcome: HandshakeEnd) => {
        handshakes.delete(socket);
        leave(outcome);
        onSettled();
      };
      start(socket, upgrade, context, links, settled, mayBeLate);
    });
    // What was no sound handshake never became a socket.
    end('failed');
  }

  function refuse(upgrade: Upgrade, code: ErrorCode): void {
    context.report.refusedUpgrade(code);
    upgrade.refuse(code, code === 'ADMISSION_BUSY' ? { retryAfterSeconds: returnSeconds() } : {});
  }

  /** Spread, so that those who are refused together do not come back together. */
  function returnSeconds(): number {
    const base = Math.min(mostReturnSeconds, leastReturnSeconds + Math.floor(gate.held / heldForEachSecond));
    return base + Math.floor(options.random() * base);
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
      if (refusal) return refuse(upgrade, refusal);
      const network = networkOf(upgrade.origin.clientAddress ?? '');
      if (upgrade.request.headers['sec-websocket-protocol'] === v2Subprotocol) {
        const leave = gate.enter(`v2 ${network}`);
        if (leave) open(upgrade, 'v2', leave);
        else refuse(upgrade, 'ADMISSION_BUSY');
        return;
      }
      const startedMs = context.clock.now();
      const key = upgrade.request.headers['x-agent-public-key']?.toString() ?? '';
      // Whoever does not know the key of an agent behind the same address cannot use up what that agent needs to return.
      const address = acquaintances.has(key) ? `v1 known ${network}` : `v1 ${network}`;
      let isHeld = false;
      holdUpgrade(gate, address, upgrade, {
        admitted(leave) {
          context.report.admittedUpgrade(context.clock.now() - startedMs);
          const settled: LeavePlace = (end) => {
            if (end === 'authenticated' && key !== '') acquaintances.add(key);
            leave(end);
          };
          const wasHeld = isHeld;
          open(upgrade, 'v1', settled, () => gate.isStorm(address, wasHeld));
        },
        refused: () => refuse(upgrade, 'ADMISSION_BUSY'),
      });
      isHeld = true;
    },
    get unauthenticated() {
      return handshakes.size;
    },
    get held() {
      return gate.held;
    },
    get exhaustedAddresses() {
      return gate.exhausted;
    },
    async close() {
      gate.open();
      await allSettled(handshakeGraceMs);
      isClosing = true;
      for (const socket of handshakes) socket.terminate();
      for (const { server } of Object.values(protocols)) server.close();
    },
  };
}

const never = () => false;

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
