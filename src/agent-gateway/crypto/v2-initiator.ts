import { decodeM2, encodeM1, encodeM1Body, encodeM3, type ReceivedM2 } from '../wire/v2-handshake.ts';
import { encodeIdentity, type V2Identity } from '../wire/v2-identity.ts';
import type { AgreementKey, CryptoSuite, SigningKey } from './suite.ts';
import { checkGateway, proveAgent } from './v2-proofs.ts';
import { hashM1, hashM2, hashProof, KeySchedule, keyFingerprint } from './v2-schedule.ts';
import { createSession, type V2Session } from './v2-session.ts';
import type { HandshakeCause, HandshakeRandomness, HandshakeStep } from './v2-steps.ts';

export interface InitiatorOptions {
  readonly suite: CryptoSuite;
  readonly signingKey: SigningKey;
  readonly identity: V2Identity;
  /** The fingerprints of the gateway keys that are trusted: current and next. The agent names itself to no other. */
  readonly pins: readonly string[];
  /** As configured on both sides; empty as a rule. */
  readonly deploymentId?: string;
  /** RFC 9266's `tls-exporter` of the connection below, 32 bytes; null binds the handshake to none. */
  readonly exporter?: Uint8Array | null;
  readonly caps?: readonly string[];
  readonly randomness?: HandshakeRandomness;
}

/** The agent's side of one handshake. Knows no socket and no clock: frames in, frames out. */
export class V2Initiator {
  /** The first frame to send. */
  readonly m1: string;
  readonly #options: InitiatorOptions;
  readonly #ephemeral: AgreementKey;
  readonly #h1: Uint8Array;
  #isOver = false;

  constructor(options: InitiatorOptions) {
    const { suite, randomness, exporter = null, caps = [] } = options;
    this.#options = options;
    this.#ephemeral = randomness ? suite.agreementKeyFromBytes(randomness.ephemeral) : suite.generateAgreementKey();
    const body = encodeM1Body({
      ephemeral: this.#ephemeral.publicKey,
      nonce: randomness?.nonce ?? suite.randomBytes(32),
      channelBinding: exporter ? 'tls-exporter' : 'none',
      caps,
    });
    this.#h1 = hashM1(suite, options.deploymentId ?? '', body);
    this.m1 = encodeM1(body);
  }

  /**
   * Takes M2 once. With M3 to send, the session is ready: its first record is M4, or the gateway ends the connection.
   * After a failure there is nothing to send and nothing left.
   */
  takeM2(text: string): HandshakeStep<{ readonly m3: string; readonly session: V2Session }> {
    if (this.#isOver) return fails('out-of-order');
    const m2 = decodeM2(text);
    const sharedSecret = m2.ok ? this.#ephemeral.sharedSecret(m2.value.ephemeral) : null;
    this.abort();
    if (!m2.ok) return fails('malformed');
    if (!sharedSecret) return fails('no-shared-secret');
    const { suite, exporter = null } = this.#options;
    const h2 = hashM2(suite, this.#h1, m2.value.body, exporter);
    const schedule = new KeySchedule(suite, h2, sharedSecret);
    try {
      return this.#answer(m2.value, h2, schedule);
    } finally {
      schedule.erase();
    }
  }

  /** Ends the handshake, where the connection has ended or time is up, and erases what it has. */
  abort(): void {
    this.#isOver = true;
    this.#ephemeral.erase();
  }

  #answer(
    m2: ReceivedM2,
    h2: Uint8Array,
    schedule: KeySchedule,
  ): HandshakeStep<{ readonly m3: string; readonly session: V2Session }> {
    const { suite, signingKey, pins, identity, caps = [] } = this.#options;
    const gateway = checkGateway(suite, schedule, h2, m2.proof);
    if (!gateway.ok) return gateway;
    const { publicKey, verify } = gateway.value;
    const fingerprint = keyFingerprint(suite, publicKey);
    if (fingerprint !== m2.keyId || !pins.includes(fingerprint)) return fails('unknown-gateway-key');
    const h3 = hashProof(suite, h2, m2.proof);
    const proof = proveAgent(suite, schedule, h3, { signingKey, identity: encodeIdentity(identity) });
    const session = createSession({
      ...{ suite, side: 'agent', schedule, signingKey },
      ...{ sessionId: m2.sessionId, transcriptHash: hashProof(suite, h3, proof) },
      ...{ peerPublicKey: publicKey, verifyPeer: verify, ownCaps: caps, peerCaps: m2.caps },
    });
    return { ok: true, value: { m3: encodeM3(proof), session } };
  }
}

function fails(cause: HandshakeCause): { readonly ok: false; readonly cause: HandshakeCause } {
  return { ok: false, cause };
}
