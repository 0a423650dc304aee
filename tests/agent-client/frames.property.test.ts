import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  commandSealingKey,
  encodeGoJson,
  encodeSecureMessage,
  envelopedMessage,
  handoffMessage,
  handoffSealingKey,
  type JsonValue,
  readCommand,
} from '../../src/agent-client/index.ts';
import { identitySignatureText, messageSignatureText } from '../../src/agent-client/v1-frames.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { commandKinds } from '../../src/agent-gateway/wire/channels.ts';

const suite = nativeCrypto;
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const wellFormedText = fc.string({ unit: 'binary' });
const jsonBody: fc.Arbitrary<JsonValue> = fc.letrec<{ value: JsonValue }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    wellFormedText,
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(wellFormedText, tie('value'), { maxKeys: 4, noNullPrototype: true }),
  ),
})).value;

describe('Go JSON', () => {
  it('says the same as the value it was made from', () => {
    fc.assert(
      fc.property(jsonBody, (value) => {
        expect(JSON.parse(encodeGoJson(value))).toEqual(value);
      }),
    );
  });

  it('sorts keys by their UTF-8 bytes', () => {
    const keys = fc.uniqueArray(fc.string({ unit: 'binary' }), { minLength: 2, maxLength: 6 });
    fc.assert(
      fc.property(keys, (names) => {
        const written = encodeGoJson(Object.fromEntries(names.map((name) => [name, 0])));
        const expected = [...names].sort((left, right) => Buffer.compare(Buffer.from(left), Buffer.from(right)));
        expect(written).toBe(`{${expected.map((name) => `${encodeGoJson(name)}:0`).join(',')}}`);
      }),
    );
  });

  it.each([
    ['<a href="x">&', '"\\u003ca href=\\"x\\"\\u003e\\u0026"'],
    ['\u2028\u2029', '"\\u2028\\u2029"'],
    ['tab\tline\nbell\u0007', '"tab\\tline\\nbell\\u0007"'],
    ['lone \ud800 half', '"lone \ufffd half"'],
    ['whole \u{1f6a8}', '"whole \u{1f6a8}"'],
    [{ b: 1, a: [true, null] }, '{"a":[true,null],"b":1}'],
    [-0, '-0'],
    [1e21, '1e+21'],
    [0.97, '0.97'],
  ])('writes %j as Go does', (value, expected) => {
    expect(encodeGoJson(value)).toBe(expected);
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])('refuses %d', (value) => {
    expect(() => encodeGoJson(value)).toThrow(TypeError);
  });
});

describe('messages', () => {
  const input = fc.record({
    seed: bytes(32),
    backendKey: bytes(32),
    nonce: bytes(12),
    id: wellFormedText,
    identifier: wellFormedText,
    timestamp: fc.nat(),
    body: jsonBody,
  });

  it('carry an enveloped body in the open, signed for the identifier alone', () => {
    fc.assert(
      fc.property(input, ({ seed, body, identifier, nonce, id, timestamp }) => {
        const key = suite.signingKeyFromSeed(seed);
        const channel = 'agent.logs';
        const message = envelopedMessage({ key, identifier, id, type: 'event', channel, timestamp, nonce, body });
        expect(JSON.parse(Buffer.from(message.payload, 'base64').toString())).toEqual(body);
        const publicKey = Buffer.from(key.publicKey).toString('base64');
        const signed = identitySignatureText(identifier, publicKey, timestamp, message.nonce);
        expect(verifies(key.publicKey, signed, message.signature)).toBe(true);
        expect(JSON.parse(encodeSecureMessage(message))).toEqual(message);
      }),
      { numRuns: 50 },
    );
  });

  it('seal a handoff body for the agent alone, and bind all of it to the signature', () => {
    fc.assert(
      fc.property(input, ({ seed, backendKey, body, nonce, id, timestamp }) => {
        const key = suite.signingKeyFromSeed(seed);
        const sealingKey = handoffSealingKey(suite, seed, key.publicKey, backendKey);
        const channel = 'agent.logs';
        const message = handoffMessage({ suite, sealingKey, key, id, type: 'event', channel, timestamp, nonce, body });
        const sealed = Buffer.from(message.payload, 'base64');
        const opened = suite.open(sealingKey, nonce, sealed) ?? new Uint8Array();
        expect(JSON.parse(Buffer.from(opened).toString())).toEqual(body);
        expect(suite.open(commandSealingKey(suite, key.publicKey, backendKey), nonce, sealed)).toBeNull();
        expect(verifies(key.publicKey, messageSignatureText(message), message.signature)).toBe(true);
        expect(verifies(key.publicKey, messageSignatureText({ ...message, id: `${id}x` }), message.signature)).toBe(
          false,
        );
      }),
      { numRuns: 50 },
    );
  });
});

describe('commands', () => {
  const sealingKey = new Uint8Array(32).fill(1);
  const command = fc.record({ nonce: bytes(12), kind: fc.constantFrom(...commandKinds), body: jsonBody });

  function sealedFrame(
    channel: string,
    nonce: Uint8Array,
    plaintext: string,
    spoil?: (sealed: Buffer) => void,
  ): string {
    const sealed = Buffer.from(suite.seal(sealingKey, nonce, Buffer.from(plaintext)));
    spoil?.(sealed);
    const payload = sealed.toString('base64');
    const frame = {
      id: 'c1',
      type: 'request',
      channel,
      payload,
      timestamp: 1,
      nonce: Buffer.from(nonce).toString('base64'),
    };
    return JSON.stringify({ ...frame, signature: '', headers: {} });
  }

  function twice(body: unknown): string {
    return Buffer.from(JSON.stringify(body)).toString('base64');
  }

  it('open to what was sealed', () => {
    fc.assert(
      fc.property(command, ({ nonce, kind, body }) => {
        const reading = readCommand(suite, sealingKey, sealedFrame(`backend.${kind}`, nonce, twice(body)));
        expect(reading).toMatchObject({ ok: true, command: { kind } });
        if (reading.ok) expect(reading.command.body).toEqual(JSON.parse(JSON.stringify(body)));
      }),
    );
  });

  it('are refused when any bit of ciphertext or tag is another', () => {
    fc.assert(
      fc.property(command, fc.nat(), fc.integer({ min: 0, max: 7 }), ({ nonce, kind, body }, place, bit) => {
        const frame = sealedFrame(`backend.${kind}`, nonce, twice(body), (sealed) => {
          const index = place % sealed.length;
          sealed[index] = (sealed[index] ?? 0) ^ (1 << bit);
        });
        expect(readCommand(suite, sealingKey, frame)).toMatchObject({ ok: false, reason: 'unopened' });
      }),
    );
  });

  it('are decrypted and dropped on the long channel', () => {
    const frame = sealedFrame('backend.host-head.policies', new Uint8Array(12), twice({}));
    expect(readCommand(suite, sealingKey, frame)).toEqual({
      ok: false,
      reason: 'unheard',
      channel: 'backend.host-head.policies',
    });
  });

  it('are undecodable when the plaintext is the JSON itself', () => {
    const frame = sealedFrame('backend.policies', new Uint8Array(12), '{"action":"deploy_policy"}');
    expect(readCommand(suite, sealingKey, frame)).toMatchObject({ ok: false, reason: 'undecodable' });
  });

  it('are never more than refused, whatever the text', () => {
    fc.assert(
      fc.property(fc.oneof(wellFormedText, fc.json()), (text) => {
        expect(readCommand(suite, sealingKey, text).ok).toBe(false);
      }),
    );
  });
});

function verifies(publicKey: Uint8Array, text: string, signatureBase64: string): boolean {
  return suite.verify(publicKey, Buffer.from(text), Buffer.from(signatureBase64, 'base64'));
}
