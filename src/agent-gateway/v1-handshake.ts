import type { WebSocket } from 'ws';
import { AegisError, describeError, type ErrorCode } from '../errors.ts';
import type { Admission } from '../fleet/admission.ts';
import type { Upgrade } from '../http/upgrade.ts';
import { endOfHandshake, type HandshakeEnd } from './address-credit.ts';
import type { GatewayContext } from './context.ts';
import { createFrameQueue, readFrames } from './frame-queue.ts';
import type { Links } from './links.ts';
import { patiently } from './patience.ts';
import { guardUnknownPeer } from './unknown-peer.ts';
import { checkV1Claim, readV1Headers, type V1Claim, V1ClaimRefused } from './v1-authentication.ts';
import { type V1Inbox, V1Link } from './v1-link.ts';
import { encodeAuthAnswer, type V1AuthAnswer, type V1Dialect } from './wire/v1.ts';

/** From the upgrade to the first frame. */
const timeoutMs = 5_000;
/** What whoever comes with a storm has beyond that: an agent waits ten seconds for its answer. */
const extraTimeoutMs = 5_000;
/** Far more than any first frame has. Whoever sends more is not read any further. */
const maxUnknownBytes = 16 * 1024;

/**
 * Waits for the first frame, which must authenticate, and answers it: with a link that takes the socket over, or with a
 * refusal. `onSettled` is called once, when it is neither waiting nor entering any more.
 */
export function startV1Handshake(
  socket: WebSocket,
  upgrade: Upgrade,
  context: GatewayContext,
  links: Links,
  onSettled: (end: HandshakeEnd) => void,
  mayBeLate: () => boolean,
): void {
  const { clock, wall, report } = context;
  const { request, socket: connection, origin } = upgrade;
  const { clientAddress: remoteAddress } = origin;
  const startedMs = performance.now();
  const headers = readV1Headers(request.headers);
  let isEntering = false;
  let agentName: string | null = null;
  let end: HandshakeEnd = 'failed';

  let hasAsked = false;
  const giveUp = () =>
    afterWhatHasCome(() => {
      if (!hasAsked) refuse('AUTH_TIMEOUT', null);
    });
  let cancelTimeout = clock.after(timeoutMs, () => {
    if (mayBeLate()) cancelTimeout = clock.after(extraTimeoutMs, giveUp);
    else giveUp();
  });
  const queue = createFrameQueue<V1Inbox>(socket, enter, report);
  readFrames(socket, queue, decode);
  const handOver = guardUnknownPeer(socket, upgrade, queue, {
    ...{ maxBytes: maxUnknownBytes, report },
    onClosed() {
      cancelTimeout();
      if (!isEntering) onSettled(end);
    },
  });

  /** Takes the first frame; the queue keeps what comes before its answer. */
  async function enter(frame: V1Inbox): Promise<void> {
    if (socket.readyState !== socket.OPEN) return;
    cancelTimeout();
    hasAsked = true;
    isEntering = true;
    try {
      await admit(claimIn(frame));
    } catch (error) {
      if (!(error instanceof AegisError)) report.error(error, 'an authentication failed');
      const code = error instanceof AegisError ? error.code : 'INTERNAL_SERVER_ERROR';
      end = endOfHandshake(code);
      refuse(code, error instanceof V1ClaimRefused ? error.dialect : null);
    }
    isEntering = false;
    onSettled(end);
  }

  function claimIn(frame: V1Inbox): V1Claim {
    if (frame === null) throw new V1ClaimRefused('enveloped', 'AUTH_MALFORMED');
    const { suite, clockSkewMs } = context;
    return checkV1Claim(frame, headers, { suite, nowMs: wall.now(), clockSkewMs, remoteAddress });
  }

  async function admit(claim: V1Claim): Promise<void> {
    agentName = claim.agent.name;
    const admission = await admissionOf(claim);
    const { standing, epoch, sessionToken, sessionExpiresAt } = admission;
    if (socket.readyState !== socket.OPEN) {
      end = 'unserved';
      if (epoch !== null) await context.admissions.left(standing.agentUid, epoch, 'the agent went away');
      return;
    }
    end = 'authenticated';
    const gatewayKey = context.identity.current;
    handOver();
    const link = new V1Link({ socket, connection, queue, gatewayKey }, claim, admission, context, links);
    answer(claim.dialect, {
      success: true,
      backendKey: Buffer.from(gatewayKey.publicKey).toString('base64'),
      sessionToken,
      expiresAtMs: sessionExpiresAt.getTime(),
      message: standing.trusted ? 'ok' : 'waiting for approval',
    });
    links.add(link);
    link.start();
    tell(null);
    report.opened(link.name, remoteAddress);
  }

  async function admissionOf(claim: V1Claim): Promise<Admission> {
    try {
      return await patiently(context, 'an admission', () => context.admissions.admit(claim.agent));
    } catch (error) {
      throw error instanceof AegisError ? new V1ClaimRefused(claim.dialect, error.code) : error;
    }
  }

  /** Says why, in the dialect of the claim where there is one, and closes. */
  function refuse(code: ErrorCode, dialect: V1Dialect | null): void {
    if (socket.readyState !== socket.OPEN) return;
    const { text, closeCode } = describeError(code);
    tell(code);
    if (dialect) answer(dialect, { success: false, message: text, code });
    socket.close(closeCode ?? 4001, text);
    queue.letGo();
  }

  function tell(code: ErrorCode | null): void {
    report.authenticated({ protocol: 'v1', agentName, durationMs: performance.now() - startedMs, code });
    if (code && agentName === null)
      context.noteRefusal({
        ...{ action: 'handshake.refused', agent: null, protocol: 'v1', code },
        clientAddress: remoteAddress,
      });
  }

  function answer(dialect: V1Dialect, body: V1AuthAnswer): void {
    const nowMs = wall.now();
    socket.send(encodeAuthAnswer(dialect, body, { id: `auth_response_${nowMs}`, nowMs }));
  }
}

function decode(data: Buffer, isBinary: boolean): V1Inbox {
  return isBinary ? null : data.toString();
}

/**
 * Calls `then` once what has arrived by now is read. Timers come before sockets in a turn of the event loop, so a gateway that
 * was held up would find agents late that are not, and one that is turned away is lost.
 */
function afterWhatHasCome(then: () => void): void {
  setImmediate(() => setImmediate(then));
}
