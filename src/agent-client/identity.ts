/** Who an agent is, from the start of its process on. */
import type { CryptoSuite, SigningKey } from '../agent-gateway/crypto/suite.ts';
import { encodeBase64 } from './base64.ts';

/** What registration gave; a process that keeps it skips registration when it reconnects. */
export interface Registration {
  readonly uid: string;
  readonly bootstrapToken: string;
}

export class AgentIdentity {
  readonly suite: CryptoSuite;
  /** A host name, which may hold dots. It stays the same over restarts and keys. */
  readonly agentId: string;
  readonly key: SigningKey;
  /** Standard base64 of the 32 raw bytes. */
  readonly publicKeyBase64: string;
  /** 32 bytes. The handoff dialect's key is made from them, so they must be at hand. */
  readonly seed: Uint8Array;
  registration: Registration | null;

  constructor(suite: CryptoSuite, agentId: string, seed: Uint8Array, registration: Registration | null) {
    this.suite = suite;
    this.agentId = agentId;
    this.seed = seed;
    this.key = suite.signingKeyFromSeed(seed);
    this.publicKeyBase64 = encodeBase64(this.key.publicKey);
    this.registration = registration;
  }

  /** What its frames are signed with: the uid once it has one, else the name. */
  get identifier(): string {
    return this.registration?.uid ?? this.agentId;
  }

  /** The headers of its upgrade request, in the order of the deployed agents. */
  upgradeHeaders(): Record<string, string> {
    return {
      'User-Agent': 'Aegis-Agent/1.0',
      'X-Agent-ID': this.identifier,
      'X-Agent-Public-Key': this.publicKeyBase64,
      ...(this.registration && {
        'X-Agent-UID': this.registration.uid,
        'X-Bootstrap-Token': this.registration.bootstrapToken,
      }),
    };
  }
}
