import { chacha20poly1305 } from '@noble/ciphers/chacha.js';
import { equalBytes } from '@noble/ciphers/utils.js';
import { ed25519, x25519 } from '@noble/curves/ed25519.js';
import { expand, extract } from '@noble/hashes/hkdf.js';
import { hmac } from '@noble/hashes/hmac.js';
import { sha256, sha512 } from '@noble/hashes/sha2.js';
import { concatBytes, randomBytes } from '@noble/hashes/utils.js';
import { isCanonicalScalar, isSoundPointEncoding } from './ed25519-screen.ts';
import { checkAeadLengths, checkExpansion } from './input-lengths.ts';
import {
  type AgreementKey,
  aeadTagBytes,
  type CryptoSuite,
  ed25519PublicKeyBytes,
  ed25519SignatureBytes,
  type SigningKey,
  x25519KeyBytes,
} from './suite.ts';

const Point = ed25519.Point;

/** The suite on the @noble packages: no Node API, so that agents elsewhere can use it. */
export const nobleCrypto: CryptoSuite = {
  sha256: (...parts) => sha256(concatBytes(...parts)),

  generateSigningKey: () => signingKey(randomBytes(32)),

  signingKeyFromSeed(seed) {
    if (seed.length !== 32) throw new RangeError('an Ed25519 seed has 32 bytes');
    return signingKey(Uint8Array.from(seed));
  },

  verify,

  verifier: (publicKey) => (message, signature) => verify(publicKey, message, signature),

  isPublicKey(publicKey) {
    if (publicKey.length !== ed25519PublicKeyBytes || !isSoundPointEncoding(publicKey)) return false;
    try {
      Point.fromBytes(publicKey);
      return true;
    } catch {
      return false;
    }
  },

  seal(key, nonce, plaintext, associatedData) {
    checkAeadLengths(key, nonce);
    return chacha20poly1305(key, nonce, associatedData).encrypt(plaintext);
  },

  open(key, nonce, sealed, associatedData) {
    checkAeadLengths(key, nonce);
    if (sealed.length < aeadTagBytes) return null;
    try {
      return chacha20poly1305(key, nonce, associatedData).decrypt(sealed);
    } catch {
      return null;
    }
  },

  hmacSha256: (key, ...parts) => hmac(sha256, key, concatBytes(...parts)),

  hkdfExtract: (salt, keyMaterial) => extract(sha256, keyMaterial, salt),

  hkdfExpand(pseudorandomKey, info, length) {
    checkExpansion(pseudorandomKey, length);
    return expand(sha256, pseudorandomKey, info, length);
  },

  isEqual: equalBytes,

  generateAgreementKey: () => agreementKey(randomBytes(x25519KeyBytes)),

  agreementKeyFromBytes(secret) {
    if (secret.length !== x25519KeyBytes) throw new RangeError('an X25519 key has 32 bytes');
    return agreementKey(Uint8Array.from(secret));
  },

  randomBytes: (length) => randomBytes(length),
};

function verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== ed25519PublicKeyBytes || signature.length !== ed25519SignatureBytes) return false;
  const encodedR = signature.subarray(0, 32);
  const encodedS = signature.subarray(32);
  if (!isSoundPointEncoding(publicKey) || !isSoundPointEncoding(encodedR)) return false;
  if (!isCanonicalScalar(encodedS)) return false;
  // noble's own verify multiplies by the cofactor and so accepts a mixed-order R that OpenSSL and Go refuse:
  // compute S·B - k·A here and compare its bytes with R (RFC 8032, section 5.1.7, without the cofactor).
  try {
    const pointA = Point.fromBytes(publicKey);
    const k = Point.Fn.create(littleEndianInteger(sha512(concatBytes(encodedR, publicKey, message))));
    const s = littleEndianInteger(encodedS);
    const expectedR = multiplyPublic(Point.BASE, s).subtract(multiplyPublic(pointA, k)).toBytes();
    return expectedR.every((byte, index) => byte === encodedR[index]);
  } catch {
    return false;
  }
}

function signingKey(seed: Uint8Array): SigningKey {
  return {
    publicKey: ed25519.getPublicKey(seed),
    sign: (message) => ed25519.sign(message, seed),
  };
}

function agreementKey(secret: Uint8Array): AgreementKey {
  let isErased = false;
  return {
    publicKey: x25519.getPublicKey(secret),
    sharedSecret(peerPublicKey) {
      if (isErased) throw new Error('the X25519 key has been erased');
      if (peerPublicKey.length !== x25519KeyBytes) return null;
      try {
        return x25519.getSharedSecret(secret, peerPublicKey);
      } catch {
        return null;
      }
    },
    erase() {
      isErased = true;
      secret.fill(0);
    },
  };
}

/** Scalar multiplication of public values: `multiplyUnsafe` is not constant time, and takes zero. */
function multiplyPublic(point: typeof Point.BASE, scalar: bigint): typeof Point.BASE {
  return point.multiplyUnsafe(scalar);
}

function littleEndianInteger(bytes: Uint8Array): bigint {
  let value = 0n;
  for (let index = bytes.length - 1; index >= 0; index--) value = (value << 8n) | BigInt(bytes[index] ?? 0);
  return value;
}
