import { ed25519 } from '@noble/curves/ed25519.js';
import { sha512 } from '@noble/hashes/sha2.js';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { nobleCrypto } from '../../src/agent-gateway/crypto/noble.ts';
import { hex } from './bytes.ts';
import { smallOrderEncodings } from './vectors.ts';

/** Signatures that no honest signer makes. Implementations differ on these; ours must not. */

const { Point } = ed25519;
const order = Point.Fn.ORDER;
const message = new TextEncoder().encode('an edge case');

/** A point of order eight. */
const torsion = Point.fromHex('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05');
const secret = 0x1234_5678_9abc_def0_1234_5678_9abc_def1n;
const publicPoint = Point.BASE.multiply(secret);

function integer(littleEndian: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(littleEndian).reverse().toString('hex')}`);
}

function scalarBytes(value: bigint): Uint8Array {
  return new Uint8Array(Buffer.from(value.toString(16).padStart(64, '0'), 'hex').reverse());
}

function challenge(pointR: Uint8Array, publicKey: Uint8Array): bigint {
  return integer(sha512(Buffer.concat([pointR, publicKey, message]))) % order;
}

/** The signature (R, r + k·a) of the message for the key a·B, whatever R is. */
function signatureWith(pointR: Uint8Array, publicKey: Uint8Array, nonce: bigint): Uint8Array {
  return new Uint8Array(Buffer.concat([pointR, scalarBytes((nonce + challenge(pointR, publicKey) * secret) % order)]));
}

/** What both suites say, in every way of asking; they must agree. */
function verdict(publicKey: Uint8Array, signature: Uint8Array): boolean {
  const answers = [nativeCrypto, nobleCrypto].flatMap((suite) => [
    suite.verify(publicKey, message, signature),
    suite.verifier(publicKey)(message, signature),
  ]);
  expect(new Set(answers).size, 'native and noble differ').toBe(1);
  return answers[0] ?? false;
}

function isPublicKey(publicKey: Uint8Array): boolean {
  expect(nativeCrypto.isPublicKey(publicKey)).toBe(nobleCrypto.isPublicKey(publicKey));
  return nativeCrypto.isPublicKey(publicKey);
}

const publicKey = publicPoint.toBytes();
const nonce = 987_654_321n;

describe('Ed25519 at its edges', () => {
  it('accepts the honest signature that the forged ones start from', () => {
    expect(verdict(publicKey, signatureWith(Point.BASE.multiply(nonce).toBytes(), publicKey, nonce))).toBe(true);
  });

  it.each(smallOrderEncodings)('refuses the small-order or non-canonical key %s', (encoding) => {
    const key = hex(encoding);
    expect(isPublicKey(key)).toBe(false);
    // S = 0 and R of small order satisfy the equation for such a key, for one message in eight at the least.
    for (const pointR of smallOrderEncodings.map(hex))
      expect(verdict(key, new Uint8Array(Buffer.concat([pointR, new Uint8Array(32)])))).toBe(false);
    const ownR = Point.BASE.multiply(nonce).toBytes();
    expect(verdict(key, new Uint8Array(Buffer.concat([ownR, scalarBytes(nonce)])))).toBe(false);
  });

  it.each(smallOrderEncodings)('refuses the small-order or non-canonical R %s under a sound key', (encoding) => {
    expect(verdict(publicKey, signatureWith(hex(encoding), publicKey, 0n))).toBe(false);
  });

  it('refuses an R with a torsion component, which only the equation with the cofactor satisfies', () => {
    for (let multiple = 1n; multiple < 8n; multiple++) {
      const mixed = Point.BASE.multiply(nonce).add(torsion.multiplyUnsafe(multiple)).toBytes();
      const signature = signatureWith(mixed, publicKey, nonce);
      expect(ed25519.verify(signature, message, publicKey, { zip215: true })).toBe(true);
      expect(verdict(publicKey, signature)).toBe(false);
    }
  });

  it('accepts a key with a torsion component where the equation without the cofactor holds, and refuses it elsewhere', () => {
    const mixedKey = publicPoint.add(torsion).toBytes();
    expect(isPublicKey(mixedKey)).toBe(true);
    const seen = { accepted: 0, refused: 0 };
    for (let attempt = 1n; attempt <= 40n; attempt++) {
      const pointR = Point.BASE.multiply(attempt).toBytes();
      const isAccepted = verdict(mixedKey, signatureWith(pointR, mixedKey, attempt));
      // k·T vanishes for one k in eight.
      expect(isAccepted).toBe(challenge(pointR, mixedKey) % 8n === 0n);
      seen[isAccepted ? 'accepted' : 'refused']++;
    }
    expect(seen.accepted).toBeGreaterThan(0);
    expect(seen.refused).toBeGreaterThan(0);
  });

  it('refuses S that is the group order or more, and accepts the same S below it', () => {
    const pointR = Point.BASE.multiply(nonce).toBytes();
    const s = integer(signatureWith(pointR, publicKey, nonce).subarray(32));
    const withS = (value: bigint) => verdict(publicKey, new Uint8Array(Buffer.concat([pointR, scalarBytes(value)])));
    expect(withS(s)).toBe(true);
    expect(withS(s + order)).toBe(false);
    expect(withS(s + 8n * order)).toBe(false);
    expect(withS(order)).toBe(false);
    expect(withS(2n ** 256n - 1n)).toBe(false);
  });

  it('refuses keys that are no points of the curve, and agrees on which are', () => {
    let points = 0;
    for (let y = 2; y < 60; y++) {
      const encoding = new Uint8Array(32);
      encoding[0] = y;
      if (isPublicKey(encoding)) points++;
      else expect(verdict(encoding, signatureWith(Point.BASE.multiply(nonce).toBytes(), encoding, nonce))).toBe(false);
    }
    expect(points).toBeGreaterThan(10);
    expect(points).toBeLessThan(50);
  });

  it('agrees on any bytes whatever', () => {
    const anyOf = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
    fc.assert(
      fc.property(anyOf(32), anyOf(64), (key, signature) => {
        expect(verdict(key, signature)).toBe(false);
        isPublicKey(key);
      }),
      { numRuns: 60 },
    );
  });

  it('agrees on any lengths whatever', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), fc.uint8Array({ maxLength: 80 }), (key, signature) => {
        expect(verdict(key, signature)).toBe(false);
      }),
      { numRuns: 100 },
    );
  });
});
