import type { CryptoSuite, SigningKey } from './suite.ts';
import { type RecordContext, RecordOpener, RecordSealer } from './v2-records.ts';
import { type KeySchedule, keyFingerprint, type Side } from './v2-schedule.ts';

/** What a finished handshake leaves: one direction to seal, the other to open. */
export interface V2Session {
  /** sid, 16 bytes. Not secret. */
  readonly sessionId: Uint8Array;
  /** h4, 32 bytes: names this session and everything that was agreed in it. Not secret. */
  readonly transcriptHash: Uint8Array;
  /** The Ed25519 key that the other side has proven to hold. */
  readonly peerPublicKey: Uint8Array;
  /** Its SHA-256, as 64 hexadecimal digits. */
  readonly peerFingerprint: string;
  /** What both sides can do beyond this version; nothing is defined yet. */
  readonly caps: readonly string[];
  readonly sealer: RecordSealer;
  readonly opener: RecordOpener;
  /** Erases both keys. To be called when the link ends, and where the session is not granted. */
  erase(): void;
}

/** Uses up the key schedule. */
export function createSession(options: {
  readonly suite: CryptoSuite;
  readonly side: Side;
  readonly schedule: KeySchedule;
  readonly sessionId: Uint8Array;
  readonly transcriptHash: Uint8Array;
  readonly signingKey: SigningKey;
  readonly peerPublicKey: Uint8Array;
  readonly verifyPeer: (message: Uint8Array, signature: Uint8Array) => boolean;
  readonly ownCaps: readonly string[];
  readonly peerCaps: readonly string[];
}): V2Session {
  const { suite, sessionId, transcriptHash, signingKey, peerPublicKey } = options;
  const keys = options.schedule.recordKeys(transcriptHash);
  const context = (direction: keyof typeof keys): RecordContext => {
    return { suite, direction, sessionId, transcriptHash, key: keys[direction] };
  };
  const [outward, inward] =
    options.side === 'agent'
      ? (['agentToGateway', 'gatewayToAgent'] as const)
      : (['gatewayToAgent', 'agentToGateway'] as const);
  const sealer = new RecordSealer(context(outward), (message) => signingKey.sign(message));
  const opener = new RecordOpener(context(inward), options.verifyPeer);
  return {
    sessionId,
    transcriptHash,
    peerPublicKey,
    peerFingerprint: keyFingerprint(suite, peerPublicKey),
    caps: options.ownCaps.filter((cap) => options.peerCaps.includes(cap)),
    sealer,
    opener,
    erase() {
      sealer.erase();
      opener.erase();
    },
  };
}
