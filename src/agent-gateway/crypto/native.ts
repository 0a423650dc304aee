import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  timingSafeEqual,
  verify,
} from 'node:crypto';
import { isCanonicalScalar, isSoundPointEncoding } from './ed25519-screen.ts';
import { checkAeadLengths, checkExpansion } from './input-lengths.ts';
import { nobleCrypto } from './noble.ts';
import {
  type AgreementKey,
  aeadTagBytes,
  type CryptoSuite,
  ed25519PublicKeyBytes,
  ed25519SignatureBytes,
  type SigningKey,
  sha256Bytes,
  x25519KeyBytes,
} from './suite.ts';

/** DER headers of private keys (RFC 8410): what precedes the 32 raw bytes in PKCS#8. */
const ed25519Pkcs8Header = Buffer.from('302e020100300506032b657004220420', 'hex');
const x25519Pkcs8Header = Buffer.from('302e020100300506032b656e04220420', 'hex');

/** The suite on node:crypto. */
export const nativeCrypto: CryptoSuite = {
  sha256(...parts) {
    const hash = createHash('sha256');
    for (const part of parts) hash.update(part);
    return hash.digest();
  },

  generateSigningKey() {
    return signingKeyFromKeyObject(generateKeyPairSync('ed25519').privateKey);
  },

  signingKeyFromSeed(seed) {
    if (seed.length !== 32) throw new RangeError('an Ed25519 seed has 32 bytes');
    return signingKeyFromKeyObject(privateKeyObject(ed25519Pkcs8Header, seed));
  },

  verify: (publicKey, message, signature) => verifier(publicKey)(message, signature),

  verifier,

  isPublicKey(publicKey) {
    // OpenSSL decodes the point when it verifies, not when it imports, so only noble can answer.
    return nobleCrypto.isPublicKey(publicKey);
  },

  seal(key, nonce, plaintext, associatedData) {
    checkAeadLengths(key, nonce);
    const cipher = createCipheriv('chacha20-poly1305', key, nonce, { authTagLength: aeadTagBytes });
    if (associatedData) cipher.setAAD(associatedData, { plaintextLength: plaintext.length });
    const body = cipher.update(plaintext);
    cipher.final();
    return Buffer.concat([body, cipher.getAuthTag()]);
  },

  open(key, nonce, sealed, associatedData) {
    checkAeadLengths(key, nonce);
    const bodyLength = sealed.length - aeadTagBytes;
    if (bodyLength < 0) return null;
    const decipher = createDecipheriv('chacha20-poly1305', key, nonce, { authTagLength: aeadTagBytes });
    if (associatedData) decipher.setAAD(associatedData, { plaintextLength: bodyLength });
    decipher.setAuthTag(sealed.subarray(bodyLength));
    const plaintext = decipher.update(sealed.subarray(0, bodyLength));
    try {
      decipher.final();
      return plaintext;
    } catch {
      return null;
    }
  },

  hmacSha256,

  hkdfExtract: (salt, keyMaterial) => hmacSha256(salt, keyMaterial),

  hkdfExpand(pseudorandomKey, info, length) {
    checkExpansion(pseudorandomKey, length);
    const expanded = new Uint8Array(length);
    let block: Uint8Array = new Uint8Array();
    for (let offset = 0, count = 1; offset < length; offset += sha256Bytes, count++) {
      const next = hmacSha256(pseudorandomKey, block, info, Uint8Array.of(count));
      block.fill(0);
      block = next;
      expanded.set(block.subarray(0, length - offset), offset);
    }
    block.fill(0);
    return expanded;
  },

  isEqual: (left, right) => left.length === right.length && timingSafeEqual(left, right),

  generateAgreementKey: () => agreementKey(generateKeyPairSync('x25519').privateKey),

  agreementKeyFromBytes(secret) {
    if (secret.length !== x25519KeyBytes) throw new RangeError('an X25519 key has 32 bytes');
    return agreementKey(privateKeyObject(x25519Pkcs8Header, secret));
  },

  randomBytes: (length) => randomBytes(length),
};

/** Wraps an Ed25519 private key, as read from a PEM file. Throws a TypeError for any other kind of key. */
export function signingKeyFromKeyObject(privateKey: KeyObject): SigningKey {
  if (privateKey.asymmetricKeyType !== 'ed25519') throw new TypeError('not an Ed25519 private key');
  return {
    publicKey: rawPublicKey(privateKey),
    sign: (message) => sign(null, message, privateKey),
  };
}

function verifier(publicKey: Uint8Array): (message: Uint8Array, signature: Uint8Array) => boolean {
  if (publicKey.length !== ed25519PublicKeyBytes || !isSoundPointEncoding(publicKey)) return () => false;
  const key = publicKeyObject('Ed25519', publicKey);
  return (message, signature) => {
    if (signature.length !== ed25519SignatureBytes) return false;
    if (!isSoundPointEncoding(signature.subarray(0, 32)) || !isCanonicalScalar(signature.subarray(32))) return false;
    try {
      return verify(null, message, key, signature);
    } catch {
      return false;
    }
  };
}

function hmacSha256(key: Uint8Array, ...parts: Uint8Array[]): Uint8Array {
  const hmac = createHmac('sha256', key);
  for (const part of parts) hmac.update(part);
  return hmac.digest();
}

/** Node has no way to erase a KeyObject: OpenSSL does it when the last reference is collected. */
function agreementKey(privateKey: KeyObject): AgreementKey {
  let held: KeyObject | null = privateKey;
  return {
    publicKey: rawPublicKey(privateKey),
    sharedSecret(peerPublicKey) {
      if (!held) throw new Error('the X25519 key has been erased');
      if (peerPublicKey.length !== x25519KeyBytes) return null;
      try {
        return diffieHellman({ privateKey: held, publicKey: publicKeyObject('X25519', peerPublicKey) });
      } catch {
        return null;
      }
    },
    erase() {
      held = null;
    },
  };
}

/** Public keys go in and out as JWK (RFC 8037): OpenSSL takes seven times as long to read them as DER. */
function publicKeyObject(curve: 'Ed25519' | 'X25519', raw: Uint8Array): KeyObject {
  const x = Buffer.from(raw.buffer, raw.byteOffset, raw.length).toString('base64url');
  return createPublicKey({ key: { kty: 'OKP', crv: curve, x }, format: 'jwk' });
}

function rawPublicKey(privateKey: KeyObject): Uint8Array {
  const { x } = createPublicKey(privateKey).export({ format: 'jwk' });
  if (x === undefined) throw new TypeError('not an Ed25519 or X25519 key');
  return new Uint8Array(Buffer.from(x, 'base64url'));
}

function privateKeyObject(header: Uint8Array, raw: Uint8Array): KeyObject {
  const der = Buffer.concat([header, raw]);
  try {
    return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  } finally {
    der.fill(0);
  }
}
