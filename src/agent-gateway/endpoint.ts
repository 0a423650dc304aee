import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type RawData, type WebSocket, WebSocketServer } from 'ws';
import { AegisError, describeError, type ErrorCode } from '../errors.ts';
import type { Admission } from '../fleet/admission.ts';
import type { GatewayContext } from './context.ts';
import type { Links } from './links.ts';
import { checkV1Claim, readV1Headers, type V1Claim, V1ClaimRefused } from './v1-authentication.ts';
import { V1Link } from './v1-link.ts';
import { encodeAuthAnswer } from './wire/v1.ts';

/** Where agents come in: upgrade, authentication, and from there on one link each. */
export interface AgentEndpoint {
  /** Takes over an upgrade request on the agents' path. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  /** Sockets that have not authenticated yet. */
  readonly unauthenticated: number;
  /** Ends sockets that have not authenticated. */
  close(): void;
}

export const maxFrameBytes = 256 * 1024;
const maxFragments = 64;
const maxBufferedChunks = 4_096;
const authenticationTimeoutMs = 5_000;
const closeTimeoutMs = 1_000;
/** Agents wait 10 s for the answer. */
const admissionPatienceMs = 8_000;
const admissionRetryMs = 500;
/** Frames that an agent sends without waiting for the answer to its authentication. */
const maxEarlyFrames = 64;

export function createAgentEndpoint(
  context: GatewayContext,
  links: Links,
  options: { readonly v1: boolean },
): AgentEndpoint {
  const server = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: maxFrameBytes,
    maxFragments,
    maxBufferedChunks,
  });
  const unauthenticated = new Set<WebSocket>();

  function refusalOf(request: IncomingMessage): ErrorCode | null {
    // Agents are no browsers; whatever sends an Origin is one (cross-site WebSocket hijacking).
    if (request.headers.origin !== undefined) return 'ORIGIN_REFUSED';
    if (request.headers['sec-websocket-protocol'] !== undefined) return 'PROTOCOL_UNSUPPORTED';
    return options.v1 ? null : 'PROTOCOL_V1_OFF';
  }

  function authenticate(socket: WebSocket, request: IncomingMessage): void {
    const startedMs = performance.now();
    const headers = readV1Headers(request.headers);
    const remoteAddress = request.socket.remoteAddress ?? null;
    const early: { data: RawData; isBinary: boolean }[] = [];
    let link: V1Link | null = null;
    unauthenticated.add(socket);

    const cancelTimeout = context.clock.after(authenticationTimeoutMs, () => refuse('AUTH_TIMEOUT'));
    // Faults of framing are the peer's; ws has closed the socket with the right code by now.
    socket.on('error', (error) => {
      const code = frameFault(error);
      if (code) context.report.refusedFrame(link?.name ?? remoteAddress ?? 'unknown', code);
    });
    socket.once('close', () => {
      cancelTimeout();
      unauthenticated.delete(socket);
    });
    socket.on('message', (data, isBinary) => {
      if (link) return link.receive(data, isBinary);
      early.push({ data, isBinary });
      if (early.length === 1) void enter(data, isBinary);
      else if (early.length > maxEarlyFrames) refuse('LINK_FLOODED');
    });

    async function enter(data: RawData, isBinary: boolean): Promise<void> {
      cancelTimeout();
      try {
        if (isBinary) throw new V1ClaimRefused('enveloped', 'AUTH_MALFORMED');
        const claim = checkV1Claim(data.toString(), headers, {
          suite: context.suite,
          nowMs: context.clock.now(),
          clockSkewMs: context.clockSkewMs,
          remoteAddress,
        });
        await admit(claim);
      } catch (error) {
        if (!(error instanceof AegisError)) context.report.error(error, 'an authentication failed');
        refuse(
          error instanceof AegisError ? error.code : 'INTERNAL_SERVER_ERROR',
          error instanceof V1ClaimRefused ? error.dialect : undefined,
        );
      }
    }

    async function admit(claim: V1Claim): Promise<void> {
      const admission = await admitPatiently(claim);
      unauthenticated.delete(socket);
      if (socket.readyState !== socket.OPEN) {
        if (admission.epoch !== null)
          await context.admissions.left(admission.standing.agentUid, admission.epoch, 'the agent went away');
        return;
      }
      link = new V1Link(socket, claim, admission, context, links);
      socket.send(
        encodeAuthAnswer(
          claim.dialect,
          {
            success: true,
            backendKey: Buffer.from(context.gatewayKey.publicKey).toString('base64'),
            sessionToken: admission.sessionToken,
            expiresAtMs: admission.sessionExpiresAt.getTime(),
            message: admission.standing.trusted ? 'ok' : 'waiting for approval',
          },
          { id: `auth_response_${context.clock.now()}`, nowMs: context.clock.now() },
        ),
      );
      links.add(link);
      link.start();
      context.report.authenticated(performance.now() - startedMs, null);
      context.report.opened(link.name, remoteAddress);
      for (const frame of early.splice(1)) link.receive(frame.data, frame.isBinary);
    }

    /** A v1 agent whose authentication fails is lost until its process restarts, so a database that fails is asked again. */
    async function admitPatiently(claim: V1Claim): Promise<Admission> {
      const deadlineMs = context.clock.now() + admissionPatienceMs;
      for (;;) {
        try {
          return await context.admissions.admit(claim.agent);
        } catch (error) {
          if (error instanceof AegisError) throw new V1ClaimRefused(claim.dialect, error.code);
          context.report.error(error, 'an admission failed');
          if (context.clock.now() > deadlineMs) throw new V1ClaimRefused(claim.dialect, 'UNAVAILABLE');
          await new Promise<void>((resolve) => context.clock.after(admissionRetryMs, resolve));
        }
      }
    }

    /** Says why, in the dialect of the claim where there is one, and closes. */
    function refuse(code: ErrorCode, dialect?: V1Claim['dialect']): void {
      if (socket.readyState !== socket.OPEN) return;
      const { text, closeCode } = describeError(code);
      context.report.authenticated(performance.now() - startedMs, code);
      const nowMs = context.clock.now();
      const answer = { success: false, message: text, code };
      if (dialect) socket.send(encodeAuthAnswer(dialect, answer, { id: `auth_response_${nowMs}`, nowMs }));
      socket.close(closeCode ?? 4001, text);
      const cancel = context.clock.after(closeTimeoutMs, () => socket.terminate());
      socket.once('close', cancel);
    }
  }

  return {
    upgrade(request, socket, head) {
      const refusal = refusalOf(request);
      if (refusal) return refuseUpgrade(socket, refusal);
      server.handleUpgrade(request, socket, head, (webSocket) => authenticate(webSocket, request));
    },
    get unauthenticated() {
      return unauthenticated.size;
    },
    close() {
      for (const socket of unauthenticated) socket.terminate();
      server.close();
    },
  };
}

/** The catalogue's name for a fault that ws found in the framing itself; null for what is no fault of the peer's. */
function frameFault(error: Error): ErrorCode | null {
  if (!('code' in error) || typeof error.code !== 'string' || !error.code.startsWith('WS_ERR_')) return null;
  if (error.code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH') return 'FRAME_TOO_LARGE';
  return error.code === 'WS_ERR_INVALID_UTF8' ? 'FRAME_NOT_UTF8' : 'FRAME_MALFORMED';
}

function refuseUpgrade(socket: Duplex, code: ErrorCode): void {
  const { httpStatus, text } = describeError(code);
  const body = JSON.stringify({ code, detail: text, status: httpStatus });
  socket.once('error', () => socket.destroy());
  socket.end(
    `HTTP/1.1 ${httpStatus} ${httpStatus === 403 ? 'Forbidden' : 'Bad Request'}\r\nConnection: close\r\n` +
      `Content-Type: application/problem+json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
