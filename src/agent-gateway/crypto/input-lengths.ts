import { sha256Bytes } from './suite.ts';

/** RFC 5869, section 2.3: 255 blocks. */
const maxExpandedBytes = 255 * sha256Bytes;

export function checkAeadLengths(key: Uint8Array, nonce: Uint8Array): void {
  if (key.length !== 32) throw new RangeError('a ChaCha20-Poly1305 key has 32 bytes');
  if (nonce.length !== 12) throw new RangeError('a ChaCha20-Poly1305 nonce has 12 bytes');
}

export function checkExpansion(pseudorandomKey: Uint8Array, length: number): void {
  if (pseudorandomKey.length < sha256Bytes) throw new RangeError('HKDF-Expand takes a key of 32 bytes or more');
  if (!(length >= 0 && length <= maxExpandedBytes)) throw new RangeError('HKDF-Expand gives 8,160 bytes at most');
}
