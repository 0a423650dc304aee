import type { CryptoSuite, SigningKey } from '../../agent-gateway/crypto/suite.ts';
import { V2Initiator } from '../../agent-gateway/crypto/v2-initiator.ts';
import type { V2Session } from '../../agent-gateway/crypto/v2-session.ts';
import { decodeM2 } from '../../agent-gateway/wire/v2-handshake.ts';
import type { V2Identity } from '../../agent-gateway/wire/v2-identity.ts';
import { defaultSessionLimits, v2CloseCodes, v2Subprotocol } from '../../agent-gateway/wire/v2-limits.ts';
import { decodeBatch } from '../../agent-gateway/wire/v2-message.ts';
import { decodeSessionGrant, type SessionGrant, sessionChannel } from '../../agent-gateway/wire/v2-session-channel.ts';
import type { V2Clock } from './clock.ts';
import type { LinkEnd } from './return-delay.ts';
import type { Connection, ConnectionClose, ConnectionListener, Transport } from './transport.ts';

export interface SessionRequest {
  readonly transport: Transport;
  readonly clock: V2Clock;
  readonly suite: CryptoSuite;
  readonly url: string;
  readonly deploymentId: string;
  /** Whether the handshake is bound to the TLS connection; it fails where the transport does not know the exporter. */
  readonly bindsChannel: boolean;
  readonly key: SigningKey;
  readonly identity: V2Identity;
  /** The fingerprints that are trusted; null trusts whoever answers. */
  readonly pins: readonly string[] | null;
  /** From the dial to the upgrade. */
  readonly dialTimeoutMs: number;
  /** From the upgrade to M4. */
  readonly handshakeTimeoutMs: number;
}

/** A session that the gateway has granted. Frames wait until somebody listens. */
export interface OpenedSession {
  readonly connection: Connection;
  readonly session: V2Session;
  readonly grant: SessionGrant;
  /** Everything that came since M4 and will come. To be called once. */
  listen(listener: SessionListener): void;
}

export type SessionListener = Omit<ConnectionListener, 'opened'>;

export type SessionAttempt = ({ readonly ok: true } & OpenedSession) | { readonly ok: false; readonly end: LinkEnd };

/**
 * Dials, and goes through the handshake to M4. Ends in time whatever the other side does. `cancel` cuts the connection of an
 * attempt that is under way, which then fails.
 */
export function openSession(request: SessionRequest): { readonly outcome: Promise<SessionAttempt>; cancel(): void } {
  let settle: (outcome: SessionAttempt) => void = () => undefined;
  const outcome = new Promise<SessionAttempt>((resolve) => {
    settle = resolve;
  });
  const attempt = new Attempt(request, settle);
  attempt.begin();
  return { outcome, cancel: () => attempt.fail('the agent was closed') };
}

class Attempt implements ConnectionListener {
  readonly #request: SessionRequest;
  readonly #settle: (outcome: SessionAttempt) => void;
  #connection: Connection | null = null;
  #initiator: V2Initiator | null = null;
  #session: V2Session | null = null;
  #listener: SessionListener | null = null;
  /** What came between M4 and `listen`. */
  readonly #unheard: ((listener: SessionListener) => void)[] = [];
  readonly #pins: string[];
  #isSettled = false;
  #cancelTimeout: () => void;

  constructor(request: SessionRequest, settle: (outcome: SessionAttempt) => void) {
    this.#request = request;
    this.#settle = settle;
    this.#pins = [...(request.pins ?? [])];
    this.#cancelTimeout = request.clock.schedule(request.dialTimeoutMs, () => this.fail('the dial timed out'));
  }

  begin(): void {
    const { transport, url } = this.#request;
    try {
      this.#connection = transport.dial({ url, subprotocol: v2Subprotocol }, this);
    } catch (error) {
      // WebSocket's own constructors throw at addresses that they do not like.
      this.fail(error instanceof Error ? error.message : String(error));
    }
    if (this.#isSettled) this.#connection?.terminate();
  }

  opened(subprotocol: string): void {
    if (this.#isSettled) return;
    const { clock, suite, key, identity, deploymentId, bindsChannel, handshakeTimeoutMs } = this.#request;
    if (subprotocol !== v2Subprotocol) {
      this.fail('the gateway does not speak aegis.v2');
      return;
    }
    const exporter = bindsChannel ? (this.#connection?.exporter() ?? null) : null;
    if (bindsChannel && !exporter) {
      this.fail('the connection has no exporter to bind to');
      return;
    }
    this.#cancelTimeout();
    this.#cancelTimeout = clock.schedule(handshakeTimeoutMs, () => this.fail('the handshake timed out'));
    this.#initiator = new V2Initiator({ suite, signingKey: key, identity, pins: this.#pins, deploymentId, exporter });
    this.#connection?.send(this.#initiator.m1);
  }

  received(frame: string | Uint8Array): void {
    if (this.#listener) this.#listener.received(frame);
    else if (this.#session && this.#isSettled) this.#unheard.push((listener) => listener.received(frame));
    else if (!this.#isSettled) this.#takeHandshake(frame);
  }

  heard(): void {
    this.#listener?.heard();
  }

  closed(close: ConnectionClose): void {
    if (this.#listener) this.#listener.closed(close);
    else if (this.#session && this.#isSettled) this.#unheard.push((listener) => listener.closed(close));
    else this.#fail({ ...close, wasOpen: false, isByPeer: true });
  }

  /** Ends the attempt; the gateway learns nothing of why. */
  fail(reason: string): void {
    this.#fail({ code: 1006, reason, httpStatus: null, retryAfterMs: null, wasOpen: false, isByPeer: false });
  }

  #fail(end: LinkEnd): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    this.#cancelTimeout();
    this.#initiator?.abort();
    this.#session?.erase();
    this.#session = null;
    this.#connection?.terminate();
    this.#settle({ ok: false, end });
  }

  #takeHandshake(frame: string | Uint8Array): void {
    if (this.#session) this.#takeM4(this.#session, frame);
    else if (typeof frame === 'string') this.#takeM2(frame);
    else this.#failHandshake('a record in the place of M2');
  }

  #takeM2(text: string): void {
    if (this.#request.pins === null) {
      // Trust on first use: whichever key M2 names, if it then proves to hold it.
      const m2 = decodeM2(text);
      if (m2.ok) this.#pins.push(m2.value.keyId);
    }
    const step = this.#initiator?.takeM2(text);
    if (!step?.ok) {
      this.#failHandshake(`M2: ${step?.cause ?? 'out-of-order'}`);
      return;
    }
    this.#session = step.value.session;
    this.#connection?.send(step.value.m3);
  }

  #takeM4(session: V2Session, frame: string | Uint8Array): void {
    const connection = this.#connection;
    const grant = typeof frame === 'string' ? null : readGrant(session, frame);
    if (!grant || !connection) {
      this.#failHandshake('M4 is unsound');
      return;
    }
    this.#cancelTimeout();
    this.#isSettled = true;
    const listen = (listener: SessionListener): void => {
      this.#listener = listener;
      for (const tell of this.#unheard.splice(0)) tell(listener);
    };
    this.#settle({ ok: true, connection, session, grant, listen });
  }

  /** Comes back as after 4001. */
  #failHandshake(reason: string): void {
    this.#fail({
      code: v2CloseCodes.handshakeFailed,
      ...{ reason, httpStatus: null, retryAfterMs: null, wasOpen: false, isByPeer: false },
    });
  }
}

function readGrant(session: V2Session, frame: Uint8Array): SessionGrant | null {
  if (frame.length > defaultSessionLimits.maxRecordBytes) return null;
  const record = session.opener.open(frame);
  const batch = record.ok ? decodeBatch(record.json, 1) : null;
  const [message] = batch?.ok ? batch.value : [];
  if (message?.type !== 'response' || message.channel !== sessionChannel) return null;
  const grant = decodeSessionGrant(message.payload);
  return grant.ok ? grant.value : null;
}
