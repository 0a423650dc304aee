import { concatBytes, lengthPrefixed, utf8 } from '../wire/bytes.ts';
import { v2Subprotocol } from '../wire/v2-limits.ts';
import { DirectionKey } from './direction-key.ts';
import { type CryptoSuite, sha256Bytes } from './suite.ts';

/** The transcript and the key schedule of the v2 handshake (docs/PROTOCOL.md, "Key schedule"). */

const protocolName = concatBytes(utf8('aegis2/handshake\0'), lengthPrefixed(utf8(v2Subprotocol)));

/** h1 = H(P ‖ LP(body1)) */
export function hashM1(suite: CryptoSuite, deploymentId: string, body1: Uint8Array): Uint8Array {
  return suite.sha256(protocolName, lengthPrefixed(utf8(deploymentId)), lengthPrefixed(body1));
}

/** h2 = H(h1 ‖ LP(body2) ‖ LP(exporter bytes, or none)) */
export function hashM2(suite: CryptoSuite, h1: Uint8Array, body2: Uint8Array, exporter: Uint8Array | null): Uint8Array {
  return suite.sha256(h1, lengthPrefixed(body2), lengthPrefixed(exporter ?? new Uint8Array()));
}

/** h3 = H(h2 ‖ LP(A2)), h4 = H(h3 ‖ LP(A3)) */
export function hashProof(suite: CryptoSuite, hash: Uint8Array, proof: Uint8Array): Uint8Array {
  return suite.sha256(hash, lengthPrefixed(proof));
}

/** The fingerprint by which operators, and `kid`, name a key: SHA-256 of its 32 bytes, in hexadecimal. */
export function keyFingerprint(suite: CryptoSuite, publicKey: Uint8Array): string {
  return Array.from(suite.sha256(publicKey), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** The two sides of the handshake, by what stands in their labels. */
export type Side = 'gateway' | 'agent';
const abbreviations = { gateway: 's2c', agent: 'c2s' } as const;

/** Every key that comes out of one handshake. Keys are made when they are needed, and erased as soon as they have been used. */
export class KeySchedule {
  readonly #suite: CryptoSuite;
  readonly #prk: Uint8Array;

  /** Erases the shared secret. */
  constructor(suite: CryptoSuite, h2: Uint8Array, sharedSecret: Uint8Array) {
    this.#suite = suite;
    this.#prk = suite.hkdfExtract(h2, sharedSecret);
    sharedSecret.fill(0);
  }

  /** A2 or A3: what the side proves, sealed under its handshake key. */
  sealProof(side: Side, hash: Uint8Array, plaintext: Uint8Array): Uint8Array {
    const key = this.#handshakeKey(side);
    try {
      return key.seal(0, plaintext, hash);
    } finally {
      key.erase();
    }
  }

  openProof(side: Side, hash: Uint8Array, proof: Uint8Array): Uint8Array | null {
    const key = this.#handshakeKey(side);
    try {
      return key.open(0, proof, hash);
    } finally {
      key.erase();
    }
  }

  /** HMAC under the side's "fin" key: whoever signed also knows the shared secret. */
  finished(side: Side, ...parts: Uint8Array[]): Uint8Array {
    const key = this.#expand(`aegis2 fin ${abbreviations[side]}`);
    try {
      return this.#suite.hmacSha256(key, ...parts);
    } finally {
      key.fill(0);
    }
  }

  /** The record keys. Erases all that they are made from. */
  recordKeys(h4: Uint8Array): { readonly agentToGateway: DirectionKey; readonly gatewayToAgent: DirectionKey } {
    const master = this.#suite.hkdfExpand(this.#prk, concatBytes(utf8('aegis2 master'), h4), sha256Bytes);
    try {
      return { agentToGateway: this.#recordKey(master, 'c2s'), gatewayToAgent: this.#recordKey(master, 's2c') };
    } finally {
      master.fill(0);
      this.erase();
    }
  }

  erase(): void {
    this.#prk.fill(0);
  }

  #handshakeKey(side: Side): DirectionKey {
    return new DirectionKey(this.#suite, this.#expand(`aegis2 hs ${abbreviations[side]}`));
  }

  #recordKey(master: Uint8Array, direction: string): DirectionKey {
    return new DirectionKey(this.#suite, this.#suite.hkdfExpand(master, utf8(`aegis2 ${direction}`), sha256Bytes));
  }

  #expand(label: string): Uint8Array {
    return this.#suite.hkdfExpand(this.#prk, utf8(label), sha256Bytes);
  }
}
