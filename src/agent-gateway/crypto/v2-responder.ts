import {
  decodeM1,
  decodeM3,
  encodeM2,
  encodeM2Body,
  type M1,
  type Received,
  sessionIdBytes,
} from '../wire/v2-handshake.ts';
import { decodeIdentity, type V2Identity } from '../wire/v2-identity.ts';
import type { CryptoSuite, SigningKey } from './suite.ts';
import { checkAgent, proveGateway } from './v2-proofs.ts';
import { hashM1, hashM2, hashProof, KeySchedule, keyFingerprint } from './v2-schedule.ts';
import { createSession, type V2Session } from './v2-session.ts';
import type { HandshakeCause, HandshakeRandomness, HandshakeStep } from './v2-steps.ts';

export interface ResponderOptions {
  readonly suite: CryptoSuite;
  /** The gateway's current identity. */
  readonly signingKey: SigningKey;
  /** As configured on both sides; empty as a rule. */
  readonly deploymentId?: string;
  readonly channelBinding?: {
    /** `required` refuses agents that do not bind their handshake to the TLS connection. */
    readonly policy: 'off' | 'required';
    /** RFC 9266's `tls-exporter` of this connection, 32 bytes; null where TLS ends elsewhere. */
    readonly exporter: Uint8Array | null;
  };
  readonly caps?: readonly string[];
  readonly randomness?: HandshakeRandomness & { readonly sessionId: Uint8Array };
}

/** An agent that has proven its key, and says who it is. Whether it may is not decided yet. */
export interface ProvenAgent {
  readonly identity: V2Identity;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  readonly channelBinding: M1['channelBinding'];
  /** To be granted by sealing M4 as its first record, or erased. */
  readonly session: V2Session;
}

interface AwaitingM3 {
  readonly m1: Received<M1>;
  readonly sessionId: Uint8Array;
  readonly schedule: KeySchedule;
  readonly h3: Uint8Array;
}

/** The gateway's side of one handshake. Knows no socket and no clock: frames in, frames out. */
export class V2Responder {
  readonly #options: ResponderOptions;
  #state: 'awaiting-m1' | AwaitingM3 | 'over' = 'awaiting-m1';

  constructor(options: ResponderOptions) {
    this.#options = options;
  }

  /** Takes the first frame and answers with M2. */
  takeM1(text: string): HandshakeStep<string> {
    if (this.#state !== 'awaiting-m1') return this.#fail('out-of-order');
    const m1 = decodeM1(text);
    if (!m1.ok) return this.#fail('malformed');
    const { policy, exporter } = this.#options.channelBinding ?? { policy: 'off', exporter: null };
    const isBound = m1.value.channelBinding === 'tls-exporter';
    if (isBound ? !exporter : policy === 'required') return this.#fail('channel-binding');
    return this.#answer(m1.value, isBound ? exporter : null);
  }

  /** Takes the second frame. No cause of failure may be told to the other side, and none may be told sooner than others. */
  takeM3(text: string): HandshakeStep<ProvenAgent> {
    if (typeof this.#state === 'string') return this.#fail('out-of-order');
    const { m1, sessionId, schedule, h3 } = this.#state;
    const { suite, signingKey, caps = [] } = this.#options;
    const proof = decodeM3(text);
    if (!proof.ok) return this.#fail('malformed');
    const agent = checkAgent(suite, schedule, h3, proof.value);
    if (!agent.ok) return this.#fail(agent.cause);
    const identity = decodeIdentity(agent.value.identity);
    agent.value.identity.fill(0);
    if (!identity.ok) return this.#fail('identity');
    const { publicKey, verify } = agent.value;
    const session = createSession({
      ...{ suite, side: 'gateway', schedule, sessionId, signingKey },
      transcriptHash: hashProof(suite, h3, proof.value),
      ...{ peerPublicKey: publicKey, verifyPeer: verify, ownCaps: caps, peerCaps: m1.caps },
    });
    this.#state = 'over';
    return { ok: true, value: { identity: identity.value, publicKey, channelBinding: m1.channelBinding, session } };
  }

  /** Ends the handshake, where the connection has ended or time is up, and erases what it has. */
  abort(): void {
    if (typeof this.#state !== 'string') this.#state.schedule.erase();
    this.#state = 'over';
  }

  #answer(m1: Received<M1>, exporter: Uint8Array | null): HandshakeStep<string> {
    const { suite, signingKey, deploymentId = '', caps = [], randomness } = this.#options;
    const ephemeral = randomness ? suite.agreementKeyFromBytes(randomness.ephemeral) : suite.generateAgreementKey();
    const sharedSecret = ephemeral.sharedSecret(m1.ephemeral);
    ephemeral.erase();
    if (!sharedSecret) return this.#fail('no-shared-secret');
    const sessionId = randomness?.sessionId ?? suite.randomBytes(sessionIdBytes);
    const nonce = randomness?.nonce ?? suite.randomBytes(32);
    const keyId = keyFingerprint(suite, signingKey.publicKey);
    const body = encodeM2Body({ ephemeral: ephemeral.publicKey, nonce, sessionId, keyId, caps });
    const h2 = hashM2(suite, hashM1(suite, deploymentId, m1.body), body, exporter);
    const schedule = new KeySchedule(suite, h2, sharedSecret);
    const proof = proveGateway(schedule, h2, signingKey);
    this.#state = { m1, sessionId, schedule, h3: hashProof(suite, h2, proof) };
    return { ok: true, value: encodeM2(body, proof) };
  }

  #fail(cause: HandshakeCause): { readonly ok: false; readonly cause: HandshakeCause } {
    this.abort();
    return { ok: false, cause };
  }
}
