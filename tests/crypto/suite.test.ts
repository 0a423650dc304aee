import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { flipped, hex, toHex } from './bytes.ts';
import { suites } from './v2-parties.ts';
import { aeadVectors, ed25519Vectors, sha256Vectors } from './vectors.ts';

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const anyBytes = fc.uint8Array({ maxLength: 300 });

/** The same bytes at an odd place in a larger buffer, as a parser's slices are. */
function misaligned(content: Uint8Array): Uint8Array {
  const larger = new Uint8Array(content.length + 3);
  larger.set(content, 1);
  return larger.subarray(1, 1 + content.length);
}

describe.each(suites)('crypto on $name', ({ suite, other }) => {
  it.each(sha256Vectors)('hashes $message as FIPS 180-4 does, in one part or in several', ({ message, digest }) => {
    const content = new TextEncoder().encode(message);
    expect(toHex(suite.sha256(content))).toBe(digest);
    expect(toHex(suite.sha256(content.subarray(0, 1), content.subarray(1), new Uint8Array()))).toBe(digest);
  });

  it.each(ed25519Vectors)('signs and verifies RFC 8032 $name', ({ seed, publicKey, message, signature }) => {
    const key = suite.signingKeyFromSeed(hex(seed));
    expect(toHex(key.publicKey)).toBe(publicKey);
    expect(toHex(key.sign(hex(message)))).toBe(signature);
    expect(suite.verify(hex(publicKey), hex(message), hex(signature))).toBe(true);
    expect(suite.verify(hex(publicKey), hex(`${message}00`), hex(signature))).toBe(false);
    expect(suite.isPublicKey(hex(publicKey))).toBe(true);
  });

  it.each(aeadVectors)('opens and seals RFC 8439 $name', ({ key, nonce, associatedData, plaintextStart, sealed }) => {
    const plaintext = suite.open(hex(key), hex(nonce), hex(sealed), hex(associatedData));
    expect(Buffer.from(plaintext ?? []).toString()).toMatch(plaintextStart);
    const again = suite.seal(hex(key), hex(nonce), plaintext ?? new Uint8Array(), hex(associatedData));
    expect(toHex(again)).toBe(sealed);
    expect(suite.open(hex(key), hex(nonce), hex(sealed))).toBeNull();
  });

  it('makes signing keys that differ, and that the other suite agrees with', () => {
    const [one, two] = [suite.generateSigningKey(), suite.generateSigningKey()];
    expect(toHex(one.publicKey)).not.toBe(toHex(two.publicKey));
    expect(one.publicKey).toHaveLength(32);
    const message = suite.randomBytes(50);
    expect(other.verify(one.publicKey, message, one.sign(message))).toBe(true);
    expect(other.verify(two.publicKey, message, one.sign(message))).toBe(false);
  });

  it('signs exactly as the other suite does', () => {
    fc.assert(
      fc.property(bytes(32), anyBytes, (seed, message) => {
        const mine = suite.signingKeyFromSeed(misaligned(seed));
        const theirs = other.signingKeyFromSeed(seed);
        expect(toHex(mine.publicKey)).toBe(toHex(theirs.publicKey));
        expect(toHex(mine.sign(misaligned(message)))).toBe(toHex(theirs.sign(message)));
      }),
      { numRuns: 30 },
    );
  });

  it('refuses a signature, a message or a key of which one bit has changed, as the other suite does', () => {
    fc.assert(
      fc.property(bytes(32), fc.uint8Array({ minLength: 1, maxLength: 80 }), fc.nat(511), (seed, message, bit) => {
        const key = other.signingKeyFromSeed(seed);
        const signature = key.sign(message);
        const verify = suite.verifier(key.publicKey);
        expect(verify(message, misaligned(signature))).toBe(true);
        expect(verify(message, flipped(signature, bit))).toBe(false);
        expect(verify(flipped(message, bit), signature)).toBe(false);
        expect(suite.verify(flipped(key.publicKey, bit), message, signature)).toBe(false);
      }),
      { numRuns: 30 },
    );
  });

  it('seals exactly as the other suite does, and opens what the other has sealed', () => {
    fc.assert(
      fc.property(
        bytes(32),
        bytes(12),
        anyBytes,
        fc.option(anyBytes, { nil: undefined }),
        (key, nonce, text, extra) => {
          const sealed = suite.seal(misaligned(key), misaligned(nonce), misaligned(text), extra);
          expect(toHex(sealed)).toBe(toHex(other.seal(key, nonce, text, extra)));
          expect(toHex(other.open(key, nonce, misaligned(sealed), extra))).toBe(toHex(text));
        },
      ),
      { numRuns: 100 },
    );
  });

  it('opens nothing of which one bit has changed: sealed text, tag, nonce, key or associated data', () => {
    fc.assert(
      fc.property(bytes(32), bytes(12), anyBytes, bytes(8), fc.nat(10_000), (key, nonce, text, extra, bit) => {
        const sealed = suite.seal(key, nonce, text, extra);
        expect(suite.open(key, nonce, flipped(sealed, bit), extra)).toBeNull();
        expect(suite.open(flipped(key, bit), nonce, sealed, extra)).toBeNull();
        expect(suite.open(key, flipped(nonce, bit), sealed, extra)).toBeNull();
        expect(suite.open(key, nonce, sealed, flipped(extra, bit))).toBeNull();
        expect(toHex(suite.open(key, nonce, sealed, extra))).toBe(toHex(text));
      }),
      { numRuns: 100 },
    );
  });

  it('opens nothing with a tag of fewer than 16 bytes, whatever the text before it', () => {
    const [key, nonce] = [suite.randomBytes(32), suite.randomBytes(12)];
    for (const textLength of [0, 1, 16, 63, 64, 65]) {
      const sealed = suite.seal(key, nonce, new Uint8Array(textLength));
      expect(suite.open(key, nonce, sealed)).not.toBeNull();
      for (let tagLength = 0; tagLength < 16; tagLength++)
        expect(suite.open(key, nonce, sealed.subarray(0, textLength + tagLength))).toBeNull();
    }
    for (let length = 0; length <= 40; length++) expect(suite.open(key, nonce, new Uint8Array(length))).toBeNull();
  });

  it('takes keys of 32 bytes, nonces of 12 and seeds of 32, and throws a RangeError for any other length', () => {
    for (let length = 0; length <= 80; length++) {
      const given = new Uint8Array(length);
      const isSound = (expected: number) => (length === expected ? 'sound' : 'refused');
      const outcome = (work: () => unknown) => {
        try {
          work();
          return 'sound';
        } catch (error) {
          return error instanceof RangeError ? 'refused' : error;
        }
      };
      expect(outcome(() => suite.seal(given, new Uint8Array(12), new Uint8Array(3)))).toBe(isSound(32));
      expect(outcome(() => suite.open(given, new Uint8Array(12), new Uint8Array(30)))).toBe(isSound(32));
      expect(outcome(() => suite.seal(new Uint8Array(32), given, new Uint8Array(3)))).toBe(isSound(12));
      expect(outcome(() => suite.open(new Uint8Array(32), given, new Uint8Array(30)))).toBe(isSound(12));
      expect(outcome(() => suite.signingKeyFromSeed(given))).toBe(isSound(32));
    }
  });

  it('answers false, and throws nothing, for keys and signatures of any wrong length', () => {
    const key = suite.signingKeyFromSeed(new Uint8Array(32));
    const message = new Uint8Array([1, 2, 3]);
    const signature = key.sign(message);
    for (let length = 0; length <= 80; length++) {
      const given = new Uint8Array(length).fill(9);
      given.set(signature.subarray(0, length));
      expect(suite.verify(key.publicKey, message, given)).toBe(length === 64);
      const cut = new Uint8Array(length).fill(9);
      cut.set(key.publicKey.subarray(0, length));
      expect(suite.verify(cut, message, signature)).toBe(length === 32);
      expect(suite.isPublicKey(cut)).toBe(length === 32);
    }
  });
});
