/**
 * The cryptographic primitives of the agent protocols, as one interface with two implementations:
 * `native.ts` (node:crypto, the gateway's hot path) and `noble.ts` (pure JavaScript, portable, and the
 * second opinion in tests). Both accept and refuse exactly the same inputs; `tests/crypto` holds them to it.
 */
export interface CryptoSuite {
  /** SHA-256 (FIPS 180-4) of the concatenated parts, 32 bytes. */
  sha256(...parts: Uint8Array[]): Uint8Array;

  /** A new Ed25519 key pair (RFC 8032). */
  generateSigningKey(): SigningKey;

  /** The Ed25519 key pair of a 32-byte seed (RFC 8032, section 5.1.5). Throws a RangeError for another length. */
  signingKeyFromSeed(seed: Uint8Array): SigningKey;

  /**
   * Whether `signature` is a valid Ed25519 signature of `message` by `publicKey`: cofactorless, S < L, and A and R
   * canonical and not of small order. Input of any other length or shape is answered `false`, never an exception.
   */
  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;

  /** The same for one key that is used many times. */
  verifier(publicKey: Uint8Array): (message: Uint8Array, signature: Uint8Array) => boolean;

  /** Whether these bytes are 32, canonical, decode to a point of the curve, and are not of small order. */
  isPublicKey(publicKey: Uint8Array): boolean;

  /** ChaCha20-Poly1305 (RFC 8439): ciphertext followed by its 16-byte tag. Throws a RangeError unless the key has 32 bytes and the nonce 12. */
  seal(key: Uint8Array, nonce: Uint8Array, plaintext: Uint8Array, associatedData?: Uint8Array): Uint8Array;

  /** The plaintext of what `seal` made, or null if anything about it is wrong, a short tag included. */
  open(key: Uint8Array, nonce: Uint8Array, sealed: Uint8Array, associatedData?: Uint8Array): Uint8Array | null;

  /** HMAC-SHA-256 (RFC 2104) of the concatenated parts, 32 bytes. */
  hmacSha256(key: Uint8Array, ...parts: Uint8Array[]): Uint8Array;

  /** HKDF-Extract with SHA-256 (RFC 5869, section 2.2), 32 bytes. */
  hkdfExtract(salt: Uint8Array, keyMaterial: Uint8Array): Uint8Array;

  /** HKDF-Expand with SHA-256 (RFC 5869, section 2.3). Throws a RangeError for more than 8,160 bytes, or a key of fewer than 32. */
  hkdfExpand(pseudorandomKey: Uint8Array, info: Uint8Array, length: number): Uint8Array;

  /** Whether both hold the same bytes, in a time that depends on their lengths alone. */
  isEqual(left: Uint8Array, right: Uint8Array): boolean;

  /** A new X25519 key pair (RFC 7748). */
  generateAgreementKey(): AgreementKey;

  /** The X25519 key pair of 32 bytes, which are copied. Throws a RangeError for another length. */
  agreementKeyFromBytes(secret: Uint8Array): AgreementKey;

  randomBytes(length: number): Uint8Array;
}

/** An Ed25519 key pair. The private half never leaves the implementation that made it. */
export interface SigningKey {
  /** 32 raw bytes. */
  readonly publicKey: Uint8Array;
  /** A 64-byte Ed25519 signature. */
  sign(message: Uint8Array): Uint8Array;
}

/** An X25519 key pair. The private half never leaves the implementation that made it. */
export interface AgreementKey {
  /** 32 raw bytes. */
  readonly publicKey: Uint8Array;
  /**
   * The 32 bytes that only the two ends can compute, which are the caller's to erase. Null for any length but 32 and for
   * points of low order, all of which would give zeros; as RFC 7748 has it, the top bit is ignored and u may be 2^255 - 19
   * or more. Throws once the key has been erased.
   */
  sharedSecret(peerPublicKey: Uint8Array): Uint8Array | null;
  /** Forgets the private half. */
  erase(): void;
}

export const x25519KeyBytes = 32;
export const sha256Bytes = 32;
export const ed25519PublicKeyBytes = 32;
export const ed25519SignatureBytes = 64;
export const aeadTagBytes = 16;
