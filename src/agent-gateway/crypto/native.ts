import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  verify,
} from 'node:crypto';
import { isCanonicalScalar, isSoundPointEncoding } from './ed25519-screen.ts';
import { nobleCrypto } from './noble.ts';
import {
  aeadTagBytes,
  type CryptoSuite,
  ed25519PublicKeyBytes,
  ed25519SignatureBytes,
  type SigningKey,
} from './suite.ts';

/** DER headers of an Ed25519 key (RFC 8410): what precedes the 32 raw bytes in SPKI and in PKCS#8. */
const spkiHeader = Buffer.from('302a300506032b6570032100', 'hex');
const pkcs8Header = Buffer.from('302e020100300506032b657004220420', 'hex');

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
    return signingKeyFromKeyObject(
      createPrivateKey({ key: Buffer.concat([pkcs8Header, seed]), format: 'der', type: 'pkcs8' }),
    );
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

  randomBytes: (length) => randomBytes(length),
};

/** Wraps an Ed25519 private key, as read from a PEM file. Throws a TypeError for any other kind of key. */
export function signingKeyFromKeyObject(privateKey: KeyObject): SigningKey {
  if (privateKey.asymmetricKeyType !== 'ed25519') throw new TypeError('not an Ed25519 private key');
  const spki = createPublicKey(privateKey).export({ format: 'der', type: 'spki' });
  return {
    publicKey: new Uint8Array(spki.subarray(spkiHeader.length)),
    sign: (message) => sign(null, message, privateKey),
  };
}

function verifier(publicKey: Uint8Array): (message: Uint8Array, signature: Uint8Array) => boolean {
  if (publicKey.length !== ed25519PublicKeyBytes || !isSoundPointEncoding(publicKey)) return () => false;
  const key = publicKeyObject(publicKey);
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

function publicKeyObject(raw: Uint8Array): KeyObject {
  return createPublicKey({ key: Buffer.concat([spkiHeader, raw]), format: 'der', type: 'spki' });
}

function checkAeadLengths(key: Uint8Array, nonce: Uint8Array): void {
  if (key.length !== 32) throw new RangeError('a ChaCha20-Poly1305 key has 32 bytes');
  if (nonce.length !== 12) throw new RangeError('a ChaCha20-Poly1305 nonce has 12 bytes');
}
