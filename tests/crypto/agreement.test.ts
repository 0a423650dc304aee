import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { flipped, hex, toHex } from './bytes.ts';
import { suites } from './v2-parties.ts';
import {
  agreementVectors,
  diffieHellman,
  hkdfVectors,
  hmacVectors,
  iteratedAgreement,
  lowOrderBeyondTheTopBit,
  lowOrderPoints,
} from './vectors.ts';

const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const anyBytes = fc.uint8Array({ maxLength: 200 });
/** p - 1 and less is canonical; 2^255 - 1 and less is what fits. */
const nonCanonical = ['ef', 'f0', 'f1', 'fe', 'ff'].map((low) => `${low}${'ff'.repeat(30)}7f`);

describe.each(suites)('X25519 on $name', ({ suite, other }) => {
  const agree = (secret: string, point: string) =>
    toHex(suite.agreementKeyFromBytes(hex(secret)).sharedSecret(hex(point)));

  it.each(agreementVectors)('multiplies $point as RFC 7748 does', ({ secret, point, shared }) => {
    expect(agree(secret, point)).toBe(shared);
  });

  it('gets the same after a thousand rounds as RFC 7748', () => {
    let [secret, point]: [string, string] = [iteratedAgreement.start, iteratedAgreement.start];
    for (let round = 1; round <= 1_000; round++) {
      [secret, point] = [agree(secret, point) ?? '', secret];
      if (round === 1) expect(secret).toBe(iteratedAgreement.afterOne);
    }
    expect(secret).toBe(iteratedAgreement.afterThousand);
  });

  it('gives Alice and Bob of RFC 7748 their public keys and one secret', () => {
    const { alice, bob, shared } = diffieHellman;
    for (const { secret, publicKey } of [alice, bob])
      expect(toHex(suite.agreementKeyFromBytes(hex(secret)).publicKey)).toBe(publicKey);
    expect(agree(alice.secret, bob.publicKey)).toBe(shared);
    expect(agree(bob.secret, alice.publicKey)).toBe(shared);
  });

  it('agrees on a secret with the other suite, whoever made which key', () => {
    const [mine, theirs] = [suite.generateAgreementKey(), other.generateAgreementKey()];
    expect(toHex(mine.publicKey)).not.toBe(toHex(suite.generateAgreementKey().publicKey));
    const secret = mine.sharedSecret(theirs.publicKey);
    expect(secret).toHaveLength(32);
    expect(toHex(secret)).toBe(toHex(theirs.sharedSecret(mine.publicKey)));
  });

  it('multiplies any bytes whatever as the other suite does', () => {
    fc.assert(
      fc.property(bytes(32), bytes(32), (secret, point) => {
        const [mine, theirs] = [suite.agreementKeyFromBytes(secret), other.agreementKeyFromBytes(secret)];
        expect(toHex(mine.publicKey)).toBe(toHex(theirs.publicKey));
        expect(toHex(mine.sharedSecret(point))).toBe(toHex(theirs.sharedSecret(point)));
      }),
      { numRuns: 40 },
    );
  });

  it.each(lowOrderPoints)('refuses the low-order point %s, whose secret anyone could guess', (point) => {
    for (const secret of [iteratedAgreement.start, diffieHellman.alice.secret, 'ff'.repeat(32)])
      expect(agree(secret, point)).toBeNull();
  });

  it.each([...lowOrderBeyondTheTopBit, ...nonCanonical])('reads %s modulo p, as the other suite does', (point) => {
    const secret = hex(diffieHellman.bob.secret);
    expect(agree(diffieHellman.bob.secret, point)).not.toBeNull();
    expect(agree(diffieHellman.bob.secret, point)).toBe(
      toHex(other.agreementKeyFromBytes(secret).sharedSecret(hex(point))),
    );
  });

  it('refuses public keys of any other length, and throws a RangeError for private ones', () => {
    const key = suite.generateAgreementKey();
    for (let length = 0; length <= 66; length++) {
      const given = new Uint8Array(length).fill(9);
      if (length === 32) continue;
      expect(key.sharedSecret(given)).toBeNull();
      expect(() => suite.agreementKeyFromBytes(given)).toThrow(RangeError);
    }
  });

  it('does nothing more with a key that has been erased, and leaves the bytes it was made from alone', () => {
    const bytesOfCaller = hex(diffieHellman.alice.secret);
    const key = suite.agreementKeyFromBytes(bytesOfCaller);
    key.erase();
    expect(() => key.sharedSecret(hex(diffieHellman.bob.publicKey))).toThrow('erased');
    expect(toHex(bytesOfCaller)).toBe(diffieHellman.alice.secret);
  });
});

describe.each(suites)('HMAC and HKDF on $name', ({ suite, other }) => {
  it.each(hmacVectors)(
    'authenticates "$message" as RFC 4231 does, in one part or in several',
    ({ key, message, mac }) => {
      const content = Buffer.from(message);
      expect(toHex(suite.hmacSha256(hex(key), content))).toBe(mac);
      expect(toHex(suite.hmacSha256(hex(key), content.subarray(0, 3), content.subarray(3), Buffer.of()))).toBe(mac);
    },
  );

  it.each(hkdfVectors)('extracts and expands RFC 5869 $name', ({ keyMaterial, salt, info, length, prk, okm }) => {
    expect(toHex(suite.hkdfExtract(hex(salt), hex(keyMaterial)))).toBe(prk);
    expect(toHex(suite.hkdfExpand(hex(prk), hex(info), length))).toBe(okm);
  });

  it('extracts and expands anything as the other suite does', () => {
    fc.assert(
      fc.property(anyBytes, anyBytes, anyBytes, fc.nat(300), (salt, keyMaterial, info, length) => {
        const prk = suite.hkdfExtract(salt, keyMaterial);
        expect(toHex(prk)).toBe(toHex(other.hkdfExtract(salt, keyMaterial)));
        expect(toHex(suite.hkdfExpand(prk, info, length))).toBe(toHex(other.hkdfExpand(prk, info, length)));
      }),
      { numRuns: 60 },
    );
  });

  it('expands to 255 blocks and no more, from 32 bytes and no fewer', () => {
    const prk = new Uint8Array(32).fill(5);
    expect(suite.hkdfExpand(prk, prk, 8_160)).toHaveLength(8_160);
    expect(() => suite.hkdfExpand(prk, prk, 8_161)).toThrow(RangeError);
    expect(() => suite.hkdfExpand(prk.subarray(1), prk, 32)).toThrow(RangeError);
  });

  it('tells equal bytes from others, of whatever length', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.nat(), (content, bit) => {
        expect(suite.isEqual(content, Uint8Array.from(content))).toBe(true);
        expect(suite.isEqual(content, flipped(content, bit))).toBe(false);
        expect(suite.isEqual(content, content.subarray(1))).toBe(false);
      }),
      { numRuns: 60 },
    );
    expect(suite.isEqual(new Uint8Array(), new Uint8Array())).toBe(true);
  });
});
