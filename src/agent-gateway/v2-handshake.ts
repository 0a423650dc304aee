import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import type { WebSocket } from 'ws';
import { AegisError, describeError, type ErrorCode } from '../errors.ts';
import type { Admission, AuthenticatedAgent } from '../fleet/admission.ts';
import type { Upgrade } from '../http/upgrade.ts';
import { endOfHandshake, type HandshakeEnd } from './address-credit.ts';
import type { GatewayContext, HandshakeFault } from './context.ts';
import { type ProvenAgent, V2Responder } from './crypto/v2-responder.ts';
import type { V2Session } from './crypto/v2-session.ts';
import { createFrameQueue, readFrames } from './frame-queue.ts';
import type { Links } from './links.ts';
import { patiently } from './patience.ts';
import { guardUnknownPeer } from './unknown-peer.ts';
import { type V2Frame, V2Link } from './v2-link.ts';
import { handshakeTimeoutMs, maxHandshakeFrameLength } from './wire/v2-limits.ts';

/** Both frames of the agent at their longest, and some control frames. Whoever sends more is not read any further. */
const maxHandshakeBytes = 2 * maxHandshakeFrameLength + 8 * 1024;

/** A responder waits for M3. */
type Stage = 'awaiting-m1' | V2Responder | 'deciding' | 'failed';

/**
 * Takes M1 and M3, and answers with M2 and with a link that takes the socket over. Whatever goes wrong is forgotten at once
 * and looks like silence: the socket closes with one code and reason when the time for the handshake is up. `onSettled` is
 * called once, when the socket is a link's or gone.
 */
export function startV2Handshake(
  socket: WebSocket,
  upgrade: Upgrade,
  context: GatewayContext,
  links: Links,
  onSettled: (end: HandshakeEnd) => void,
): void {
  const { clock, report } = context;
  const remoteAddress = upgrade.origin.clientAddress;
  const startedMs = performance.now();
  let stage: Stage = 'awaiting-m1';
  let isTimeUp = false;
  let outcome: HandshakeEnd = 'failed';

  const cancelTimeout = clock.after(handshakeTimeoutMs, () => {
    isTimeUp = true;
    if (stage === 'deciding') return;
    if (stage !== 'failed') fail('unfinished');
    end();
  });
  const queue = createFrameQueue<V2Frame>(socket, take, report);
  readFrames(socket, queue, decode);
  const handOver = guardUnknownPeer(socket, upgrade, queue, {
    ...{ maxBytes: maxHandshakeBytes, report },
    onClosed() {
      cancelTimeout();
      if (stage instanceof V2Responder) stage.abort();
      if (stage !== 'deciding') onSettled(outcome);
    },
  });

  function take(frame: V2Frame): Promise<void> | null {
    if (stage === 'deciding' || stage === 'failed') return null;
    if (typeof frame !== 'string') return fail('not-text');
    if (stage === 'awaiting-m1') return answer(frame);
    const agent = stage.takeM3(frame);
    return agent.ok ? decide(agent.value) : fail(agent.cause);
  }

  function answer(m1: string): null {
    const { suite, identity, v2 } = context;
    const { deploymentId, tlsExporter: policy } = v2;
    const channelBinding = { policy, exporter: exporterOf(upgrade.socket) };
    const responder = new V2Responder({ suite, signingKey: identity.current, deploymentId, channelBinding });
    const m2 = responder.takeM1(m1);
    if (!m2.ok) return fail(m2.cause);
    stage = responder;
    socket.send(m2.value);
    return null;
  }

  async function decide({ identity, publicKey, session }: ProvenAgent): Promise<void> {
    stage = 'deciding';
    const { agentId: name, orgId, enroll } = identity;
    const agent = {
      ...({ protocol: 'v2', dialect: null, name, remoteAddress } as const),
      publicKey: Buffer.from(publicKey).toString('base64'),
    };
    let admission: Admission | null = null;
    try {
      admission = await patiently(context, 'an admission', () =>
        context.admissions.admitV2({ ...agent, orgId, enroll }),
      );
    } catch (error) {
      tell(error instanceof AegisError ? error.code : 'INTERNAL_SERVER_ERROR', name);
    }
    if (admission && socket.readyState === socket.OPEN) return open(session, agent, admission);
    stage = 'failed';
    session.erase();
    if (admission) outcome = 'unserved';
    if (admission && admission.epoch !== null)
      await context.admissions.left(admission.standing.agentUid, admission.epoch, 'the agent went away');
    if (socket.readyState === socket.CLOSED) onSettled(outcome);
    else if (isTimeUp) end();
  }

  function open(session: V2Session, agent: AuthenticatedAgent, admission: Admission): void {
    cancelTimeout();
    handOver();
    const link = new V2Link({ socket, connection: upgrade.socket, queue }, session, agent, admission, context, links);
    link.grant(admission);
    links.add(link);
    link.start();
    tell(null, agent.name);
    report.opened(link.name, remoteAddress);
    onSettled(outcome);
  }

  /** Forgets everything but the socket, which looks as if the handshake were still under way. */
  function fail(fault: HandshakeFault): null {
    if (stage instanceof V2Responder) stage.abort();
    stage = 'failed';
    report.failedHandshake(fault);
    tell('HANDSHAKE_FAILED', null);
    return null;
  }

  function tell(code: ErrorCode | null, agentName: string | null): void {
    outcome = endOfHandshake(code);
    report.authenticated({ protocol: 'v2', agentName, durationMs: performance.now() - startedMs, code });
    if (code && agentName === null)
      context.noteRefusal({
        ...{ action: 'handshake.refused', agent: null, protocol: 'v2', code },
        clientAddress: remoteAddress,
      });
  }

  function end(): void {
    const { closeCode, text } = describeError('HANDSHAKE_FAILED');
    socket.close(closeCode, text);
    queue.letGo();
  }
}

function decode(data: Buffer, isBinary: boolean): V2Frame {
  return isBinary ? data : data.toString();
}

/** RFC 9266, section 4; null where TLS ends elsewhere. */
function exporterOf(socket: Duplex): Uint8Array | null {
  if (!(socket instanceof TLSSocket)) return null;
  return socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0));
}
