import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeBase64Url, decodeUtf8, encodeBase64Url, utf8 } from '../../src/agent-gateway/wire/bytes.ts';
import { isIdentifier, maxJsonDepth } from '../../src/agent-gateway/wire/text.ts';
import {
  decodeM1,
  decodeM2,
  decodeM3,
  encodeM1,
  encodeM1Body,
  encodeM2,
  encodeM2Body,
  encodeM3,
} from '../../src/agent-gateway/wire/v2-handshake.ts';
import { decodeIdentity, encodeIdentity, maxIdentityBytes } from '../../src/agent-gateway/wire/v2-identity.ts';
import { maxHandshakeFrameLength } from '../../src/agent-gateway/wire/v2-limits.ts';
import {
  decodeBatch,
  encodeBatch,
  encodeMessage,
  maxAcknowledgedIds,
  v2MessageTypes,
} from '../../src/agent-gateway/wire/v2-message.ts';
import { decodeRecord, encodeRecord, recordOverheadBytes } from '../../src/agent-gateway/wire/v2-record.ts';
import {
  decodeEnrollmentNotice,
  decodeErrorNotice,
  decodeKeyRotation,
  decodeKeysNotice,
  decodeSessionGrant,
  encodeEnrollmentNotice,
  encodeErrorNotice,
  encodeKeyRotation,
  encodeKeysNotice,
  encodeSessionGrant,
  isRotated,
  sessionOperation,
} from '../../src/agent-gateway/wire/v2-session-channel.ts';

const throughJson = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const identifier = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 255 }).filter(isIdentifier);
const caps = fc.uniqueArray(fc.stringMatching(/^[a-z0-9-]{1,32}$/), { maxLength: 16 });
const milliseconds = fc.nat({ max: 253_402_300_799_999 });
const positive = fc.integer({ min: 1, max: 2 ** 40 });
/** As JSON has it: there is no negative zero. */
const facts = fc.option(fc.jsonValue({ maxDepth: 3 }).map(throughJson), { nil: undefined });

const m1 = fc.record({
  ...{ ephemeral: bytes(32), nonce: bytes(32), caps },
  channelBinding: fc.constantFrom('none' as const, 'tls-exporter' as const),
});
const keyId = fc.stringMatching(/^[0-9a-f]{64}$/);
const m2 = fc.record({ ephemeral: bytes(32), nonce: bytes(32), sessionId: bytes(16), keyId, caps });
const enrollment = fc.record({
  ...{ token: fc.option(identifier), hostId: identifier, agentVersion: fc.option(identifier) },
  ...{ machineIdHash: fc.option(identifier), platform: facts, network: facts, capabilities: facts },
});
const identity = fc.record({ agentId: identifier, orgId: fc.option(identifier), enroll: fc.option(enrollment) });
const message = fc.record({
  ...{ id: identifier, type: fc.constantFrom(...v2MessageTypes), channel: fc.constantFrom('agent.threats', 'session') },
  ...{ payloadText: fc.json({ maxDepth: 4 }), timestampMs: milliseconds },
  headers: fc.record({
    ...{ ackFor: fc.array(identifier, { minLength: 1, maxLength: 5 }), replyTo: fc.option(identifier) },
    ...{ expiresInMs: fc.option(milliseconds), traceparent: fc.constant(null) },
  }),
});
const grant = fc.record({
  ...{ agentUid: identifier, sessionToken: identifier, expiresAtMs: milliseconds, serverTimeMs: milliseconds },
  ...{ epoch: milliseconds, heartbeatMs: positive },
  limits: fc.record({
    ...{ maxRecordBytes: positive, maxBatchMessages: positive, maxInFlightMessages: positive, ackTimeoutMs: positive },
  }),
  enrollment: fc.constantFrom('trusted' as const, 'quarantined' as const),
  keys: fc.record({ current: bytes(32), next: fc.option(bytes(32)) }),
});
const rotation = fc.record({ publicKey: bytes(32), signatureByOld: bytes(64), signatureByNew: bytes(64) });
const errorNotice = fc.record({
  ...{ code: identifier, message: fc.string(), retryable: fc.boolean(), retryAfterMs: fc.option(milliseconds) },
});

/** Valid content with some bytes replaced, removed or doubled. */
const mutated = (valid: fc.Arbitrary<Uint8Array>) =>
  fc
    .tuple(valid, fc.array(fc.tuple(fc.nat(), fc.uint8Array({ maxLength: 3 })), { minLength: 1, maxLength: 6 }))
    .map(([content, edits]) =>
      edits.reduce((changed: Uint8Array, [place, piece]) => {
        const at = place % (changed.length + 1);
        return Uint8Array.from([...changed.subarray(0, at), ...piece, ...changed.subarray(at + (place % 3))]);
      }, content),
    );

const someBatch = fc.array(message, { minLength: 1, maxLength: 3 }).map(encodeBatch);
const anyBytes = fc.oneof(
  fc.uint8Array({ maxLength: 300 }),
  fc.json().map(utf8),
  mutated(someBatch),
  mutated(identity.map(encodeIdentity)),
  mutated(m1.map((fields) => utf8(encodeM1(encodeM1Body(fields))))),
  mutated(m2.map((fields) => utf8(encodeM2(encodeM2Body(fields), new Uint8Array(144))))),
  mutated(grant.map((fields) => utf8(JSON.stringify(encodeSessionGrant(fields))))),
  mutated(rotation.map((fields) => utf8(JSON.stringify(encodeKeyRotation(fields))))),
);

describe('whatever comes over v2', () => {
  it('is decoded or refused with a code, never thrown at anyone', () => {
    fc.assert(
      fc.property(anyBytes, (content) => {
        const text = Buffer.from(content).toString('latin1');
        const value = (() => {
          try {
            return JSON.parse(text);
          } catch {
            return text;
          }
        })();
        const answers = [
          ...[decodeM1(text), decodeM2(text), decodeM3(text), decodeIdentity(content), decodeRecord(content)],
          ...[decodeBatch(content, 10), decodeSessionGrant(value), decodeKeysNotice(value), decodeKeyRotation(value)],
          ...[decodeErrorNotice(value), decodeEnrollmentNotice(value)],
        ];
        for (const answer of answers) if (!answer.ok) expect(answer.code).toMatch(/^(HANDSHAKE|RECORD|FRAME)_/);
        const batch = decodeBatch(content, 10);
        if (!batch.ok) return;
        for (const { id, payload, payloadText } of batch.value) {
          expect(isIdentifier(id)).toBe(true);
          expect(JSON.parse(payloadText)).toEqual(payload);
        }
        sessionOperation(value);
        isRotated(value);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('what is written', () => {
  it('is read as it was meant: the frames of the handshake, with the bytes to hash', () => {
    fc.assert(
      fc.property(m1, m2, bytes(144), (first, second, proof) => {
        const [body1, body2] = [encodeM1Body(first), encodeM2Body(second)];
        expect(decodeM1(encodeM1(body1))).toEqual({ ok: true, value: { ...first, body: body1 } });
        expect(decodeM2(encodeM2(body2, proof))).toEqual({ ok: true, value: { ...second, body: body2, proof } });
        expect(decodeM3(encodeM3(proof))).toEqual({ ok: true, value: proof });
      }),
    );
  });

  it('is read as it was meant: who an agent says it is', () => {
    fc.assert(
      fc.property(identity, (who) => {
        const encoded = encodeIdentity(who);
        if (/\\u(0000|d[89a-f])/i.test(decodeUtf8(encoded) ?? '')) return;
        const expected = encoded.length <= maxIdentityBytes ? { ok: true, value: who } : { ok: false };
        expect(decodeIdentity(encoded)).toMatchObject(expected);
      }),
      { numRuns: 60 },
    );
  });

  it('is read as it was meant: records', () => {
    const counter = fc.nat({ max: Number.MAX_SAFE_INTEGER });
    fc.assert(
      fc.property(
        fc.nat({ max: 2 ** 32 - 1 }),
        counter,
        fc.uint8Array({ minLength: 81, maxLength: 99 }),
        (generation, seq, sealed) => {
          const frame = encodeRecord({ generation, seq, sealed });
          expect(decodeRecord(frame)).toEqual({ ok: true, value: { generation, seq, sealed } });
          const inside = new Uint8Array(frame.length + 5);
          inside.set(frame, 5);
          expect(decodeRecord(inside.subarray(5))).toEqual({ ok: true, value: { generation, seq, sealed } });
        },
      ),
    );
  });

  it('is read as it was meant: messages', () => {
    fc.assert(
      fc.property(fc.array(message, { minLength: 1, maxLength: 6 }), (messages) => {
        const expected = messages.map((given) => ({ ...given, payload: JSON.parse(given.payloadText) }));
        expect(decodeBatch(encodeBatch(messages), 6)).toEqual({ ok: true, value: expected });
      }),
      { numRuns: 150 },
    );
  });

  it('is read as it was meant: what is said of the session', () => {
    fc.assert(
      fc.property(grant, rotation, errorNotice, (session, rotate, error) => {
        const encoded = throughJson(encodeSessionGrant(session));
        expect(decodeSessionGrant(encoded)).toEqual({ ok: true, value: session });
        expect(sessionOperation(encoded)).toBe('session');
        expect(decodeKeysNotice(throughJson(encodeKeysNotice(session.keys)))).toEqual({
          ok: true,
          value: session.keys,
        });
        expect(decodeEnrollmentNotice(throughJson(encodeEnrollmentNotice(session.enrollment)))).toEqual({
          ok: true,
          value: session.enrollment,
        });
        expect(decodeKeyRotation(throughJson(encodeKeyRotation(rotate)))).toEqual({ ok: true, value: rotate });
        expect(decodeErrorNotice(throughJson(encodeErrorNotice(error)))).toEqual({ ok: true, value: error });
      }),
      { numRuns: 60 },
    );
  });
});

describe('base64url', () => {
  it('is what encodes to the same text again, and nothing else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), fc.string({ unit: 'binary', maxLength: 8 }), (content, text) => {
        const encoded = encodeBase64Url(content);
        expect(encoded).toBe(Buffer.from(content).toString('base64url'));
        expect(decodeBase64Url(encoded)).toEqual(content);
        const read = decodeBase64Url(text);
        if (read) expect(encodeBase64Url(read)).toBe(text);
      }),
      { numRuns: 1_000 },
    );
    for (const alias of ['AB', 'AA==', 'AAB', 'AA=', 'A A', '+/8', 'A', 'AAAAA', 'AA\n', 'ÄA'])
      expect(decodeBase64Url(alias)).toBeNull();
  });
});

describe('the limits of v2', () => {
  const frameOf = (body: object) => encodeM1(utf8(JSON.stringify(body)));
  const sound = { v: 2, e: 'A'.repeat(43), n: 'A'.repeat(43), cb: 'none', caps: [] };
  const isRead = (fields: object) => decodeM1(frameOf({ ...sound, ...fields })).ok;

  it('of M1: version, lengths, binding, caps', () => {
    expect(isRead({})).toBe(true);
    expect(isRead({ unknown: 1 })).toBe(true);
    for (const v of [1, 3, '2', null, undefined]) expect(isRead({ v })).toBe(false);
    for (const e of ['A'.repeat(42), 'A'.repeat(44), `${'A'.repeat(42)}B`, '', 7, null, undefined])
      expect([isRead({ e }), isRead({ n: e })]).toEqual([false, false]);
    for (const cb of ['tls-unique', '', 1, undefined]) expect(isRead({ cb })).toBe(false);
    expect(isRead({ caps: Array.from({ length: 16 }, (_, index) => `${'c'.repeat(30)}${index + 10}`) })).toBe(true);
    expect(isRead({ caps: Array.from({ length: 17 }, (_, index) => `c${index}`) })).toBe(false);
    for (const unsound of [['A'], [''], ['c'.repeat(33)], ['a', 'a'], [1], 'a', undefined, { length: 0 }])
      expect(isRead({ caps: unsound })).toBe(false);
    expect(decodeM1(`{"m1":"${encodeBase64Url(utf8(`{"__proto__":{},${JSON.stringify(sound).slice(1)}`))}"}`).ok).toBe(
      false,
    );
  });

  it('of the frames of the handshake: their length', () => {
    const proof = (length: number) => `{"m3":"${'A'.repeat(length - 9)}"}`;
    expect(decodeM3(proof(maxHandshakeFrameLength - 1)).ok).toBe(true);
    expect(decodeM3(`${proof(maxHandshakeFrameLength - 1)} `).ok).toBe(true);
    expect(decodeM3(`${proof(maxHandshakeFrameLength - 1)}  `).ok).toBe(false);
  });

  it.each(['\\u0000', '\\ud800', '\\udc00'])('of identities: no text with %s, which could not be kept', (unsound) => {
    const identityWith = (text: string) => `{"agent_id":"a","enroll":{"host_id":"h","platform":{"os":"${text}"}}}`;
    expect(decodeIdentity(utf8(identityWith(unsound))).ok).toBe(false);
    expect(decodeIdentity(utf8(identityWith(`\\${unsound}`))).ok).toBe(true);
    expect(decodeIdentity(utf8(identityWith('\\ud83d\\ude00'))).ok).toBe(true);
  });

  it('of identities: bytes and depth', () => {
    const padded = (length: number) => `{"agent_id":"a","pad":"${'x'.repeat(length - 25)}"}`;
    expect(utf8(padded(maxIdentityBytes))).toHaveLength(maxIdentityBytes);
    expect(decodeIdentity(utf8(padded(maxIdentityBytes))).ok).toBe(true);
    expect(decodeIdentity(utf8(padded(maxIdentityBytes + 1))).ok).toBe(false);
    const deep = (depth: number) =>
      `{"agent_id":"a","enroll":{"host_id":"h","platform":${'['.repeat(depth)}${']'.repeat(depth)}}}`;
    expect(decodeIdentity(utf8(deep(maxJsonDepth - 2))).ok).toBe(true);
    expect(decodeIdentity(utf8(deep(maxJsonDepth - 1))).ok).toBe(false);
  });

  it('of records: what is too short, of another kind, or numbered beyond 2^53', () => {
    const frame = encodeRecord({ generation: 0, seq: 0, sealed: new Uint8Array(81) });
    expect(decodeRecord(frame).ok).toBe(true);
    expect(frame).toHaveLength(recordOverheadBytes + 1);
    expect(decodeRecord(frame.subarray(0, recordOverheadBytes)).ok).toBe(false);
    expect(decodeRecord(Uint8Array.from([1, ...frame.subarray(1)])).ok).toBe(false);
    expect(decodeRecord(Uint8Array.from([...frame.subarray(0, 6), 0x1f, ...frame.subarray(7)])).ok).toBe(true);
    expect(decodeRecord(Uint8Array.from([...frame.subarray(0, 6), 0x20, ...frame.subarray(7)])).ok).toBe(false);
  });

  const one = { id: 'a', type: 'event', channel: 'agent.logs', payloadText: '{}', timestampMs: 1 } as const;
  const codeOf = (text: string, most = 3) => {
    const batch = decodeBatch(utf8(text), most);
    return batch.ok ? 'read' : batch.code;
  };
  const withFields = (fields: object) =>
    codeOf(`[${JSON.stringify({ ...JSON.parse(encodeMessage(one)), ...fields })}]`);

  it('of batches: one message at the least, and no more than was agreed', () => {
    const batch = (count: number) => `[${Array.from({ length: count }, () => encodeMessage(one)).join(',')}]`;
    expect([codeOf(batch(1)), codeOf(batch(3))]).toEqual(['read', 'read']);
    for (const unsound of [batch(0), batch(4), '{}', '[1]', '[[]]', '[null]', '', `${batch(1)}x`, `\ufeff${batch(1)}`])
      expect(codeOf(unsound)).toBe('FRAME_MALFORMED');
    expect(decodeBatch(Uint8Array.from([...utf8('["'), 0xff, ...utf8('"]')]), 3).ok).toBe(false);
  });

  it('of messages: ids, types, channels, times, headers', () => {
    expect(withFields({})).toBe('read');
    for (const id of ['', 'x'.repeat(256), 'a\u0000', '\ud800', 1, null, undefined])
      expect(withFields({ id })).toBe('FRAME_ID_INVALID');
    expect([withFields({ id: 'x'.repeat(255) }), withFields({ channel: 'c'.repeat(280) })]).toEqual(['read', 'read']);
    const unsound = [
      ...[{ type: 'other' }, { type: 'ack' }, { channel: '' }, { channel: 'c'.repeat(281) }, { channel: 'a\n' }],
      ...[{ channel: '\udc00' }, { timestamp: -1 }, { timestamp: 1.5 }, { timestamp: '1' }, { timestamp: 2 ** 53 }],
      ...[{ payload: undefined }, { headers: null }, { headers: [] }, { headers: { ack_for: 'a' } }],
      ...[{ headers: { ack_for: [''] } }, { headers: { reply_to: '' } }, { headers: { expires_in: -1 } }],
      ...[{ headers: { traceparent: 'x' } }, { headers: { reply_to: 7 } }],
    ];
    for (const fields of unsound) expect([fields, withFields(fields)]).toEqual([fields, 'FRAME_MALFORMED']);
    const ids = (count: number) => ({ type: 'ack', headers: { ack_for: Array.from({ length: count }, () => 'i') } });
    expect(withFields(ids(maxAcknowledgedIds))).toBe('read');
    expect(withFields(ids(maxAcknowledgedIds + 1))).toBe('FRAME_MALFORMED');
    expect(codeOf(`[{"__proto__":{},${encodeMessage(one).slice(1)}]`)).toBe('FRAME_MALFORMED');
    expect(withFields({ headers: { traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01` } })).toBe('read');
  });

  it.each([
    [maxJsonDepth, 'read'],
    [maxJsonDepth + 1, 'FRAME_PAYLOAD_TOO_DEEP'],
    [100_000, 'FRAME_PAYLOAD_TOO_DEEP'],
  ])('of payloads: nested %i deep they are %s, whatever brackets their strings hold', (depth, expected) => {
    const payloadText = `${'['.repeat(depth)}"[[[\\"[[["${']'.repeat(depth)}`;
    expect(codeOf(`[${encodeMessage({ ...one, payloadText })}]`)).toBe(expected);
  });
});
