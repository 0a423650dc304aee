import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  authenticationRequest,
  encodeEnvelopedAuthentication,
  encodeHandoffAuthentication,
  encodeSecureMessage,
  envelopedMessage,
} from '../../src/agent-client/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import {
  agentChannelName,
  commandChannelName,
  commandKinds,
  eventKinds,
  parseAgentChannel,
  parseCommandChannel,
} from '../../src/agent-gateway/wire/channels.ts';
import {
  decodeBase64,
  isIdentifier,
  isTooDeep,
  isWellFormed,
  maxJsonDepth,
} from '../../src/agent-gateway/wire/text.ts';
import {
  decodeBody,
  decodeFirstFrame,
  decodeFrame,
  decodeObjectBody,
  encodeAuthAnswer,
  encodeFrame,
  v1FrameTypes,
} from '../../src/agent-gateway/wire/v1.ts';
import { recordedFrames } from '../agent-client/recordings.ts';

const key = nativeCrypto.generateSigningKey();
const agentId = 'db-7.example.net';
const timestamp = 1_795_436_172;
const identifier = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 255 }).filter(isIdentifier);

const validFrames = [
  ...recordedFrames('enveloped').map(({ text }) => text),
  ...recordedFrames('handoff').map(({ text }) => text),
];

/** A valid frame with some of its characters replaced, removed or doubled. */
const mutatedFrame = fc
  .tuple(
    fc.constantFrom(...validFrames),
    fc.array(
      fc.tuple(
        fc.nat(),
        fc.oneof(fc.string({ unit: 'binary', maxLength: 3 }), fc.constantFrom('{', '[', '"', '\\u0000', '\ud800')),
      ),
      {
        minLength: 1,
        maxLength: 8,
      },
    ),
  )
  .map(([text, edits]) =>
    edits.reduce((mutated, [place, piece]) => {
      const at = place % mutated.length;
      return mutated.slice(0, at) + piece + mutated.slice(at + (place % 3));
    }, text),
  );

/** A valid frame with a field that is something else, or missing. */
const warpedFrame = fc
  .tuple(fc.constantFrom(...validFrames), fc.string(), fc.jsonValue(), fc.boolean())
  .map(([text, otherField, value, isOther]) => {
    const fields: Record<string, unknown> = JSON.parse(text);
    const names = Object.keys(fields);
    const field = isOther ? otherField : (names[otherField.length % names.length] ?? '');
    return JSON.stringify({ ...fields, [field]: value });
  });

const anyText = fc.oneof(fc.string({ unit: 'binary' }), fc.json(), mutatedFrame, warpedFrame);

describe('whatever comes', () => {
  it('is decoded or refused with a code, never thrown at anyone', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const first = decodeFirstFrame(text);
        expect(['handoff', 'enveloped']).toContain(first.dialect);
        if (first.request.ok) {
          expect(isIdentifier(first.request.value.agentId)).toBe(true);
          expect(first.request.value.publicKeyBytes).toHaveLength(32);
          expect(first.request.value.signature).toHaveLength(64);
        } else expect(first.request.code).toBe('AUTH_MALFORMED');

        const frame = decodeFrame(text);
        if (frame.ok) {
          expect(isIdentifier(frame.value.id)).toBe(true);
          expect(v1FrameTypes).toContain(frame.value.type);
          expect(Number.isFinite(frame.value.timestampMs)).toBe(true);
          expect(() => new Date(frame.value.timestampMs).toISOString()).not.toThrow();
        } else expect(['FRAME_MALFORMED', 'FRAME_ID_INVALID']).toContain(frame.code);

        parseAgentChannel(text);
        parseCommandChannel(text);
        decodeObjectBody(text);
      }),
      { numRuns: 2_000 },
    );
  });

  it('is as a body something that the database can keep: sound JSON text of what was said', () => {
    const payload = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.uint8Array({ maxLength: 64 }).map((bytes) => Buffer.from(bytes).toString('base64')),
      fc.json().map((text) => Buffer.from(text).toString('base64')),
      mutatedFrame.map((text) => Buffer.from(text).toString('base64')),
    );
    fc.assert(
      fc.property(payload, (text) => {
        const body = decodeBody(text);
        if (!body.ok) return expect(body.code).toBe('FRAME_PAYLOAD_TOO_DEEP');
        expect(JSON.parse(body.value.text)).toEqual(body.value.value);
        expect(isTooDeep(body.value.text)).toBe(false);
        expect(body.value.text).not.toMatch(/\u0000/);
        expect(isWellFormed(body.value.text)).toBe(true);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('what agents write', () => {
  it('is read as it was meant: authentications', () => {
    fc.assert(
      fc.property(identifier, fc.uint8Array({ minLength: 16, maxLength: 16 }), (name, nonce) => {
        const request = authenticationRequest({ key, agentId: name, timestamp, nonce });
        for (const [dialect, text] of [
          ['handoff', encodeHandoffAuthentication(request)],
          ['enveloped', encodeEnvelopedAuthentication('auth_1', request)],
        ] as const) {
          const first = decodeFirstFrame(text);
          expect(first).toMatchObject({
            dialect,
            request: { ok: true, value: { agentId: name, nonce: request.nonce } },
          });
          if (!first.request.ok) return;
          const { publicKeyBytes, signedBytes, signature } = first.request.value;
          expect(nativeCrypto.verify(publicKeyBytes, signedBytes, signature)).toBe(true);
        }
      }),
      { numRuns: 100 },
    );
  });

  it('is read as it was meant: messages and their bodies', () => {
    fc.assert(
      fc.property(identifier, fc.jsonValue({ maxDepth: 5 }), fc.constantFrom(...v1FrameTypes), (id, body, type) => {
        const json = JSON.stringify(body);
        const message = envelopedMessage({
          ...{ key, id, type, timestamp, identifier: agentId, channel: 'agent.threats' },
          ...{ nonce: Buffer.from('message_nonc'), body: Buffer.from(json) },
        });
        const frame = decodeFrame(encodeSecureMessage(message));
        expect(frame).toMatchObject({
          ok: true,
          value: { id, type, channel: 'agent.threats', timestamp: String(timestamp) },
        });
        if (!frame.ok) return;
        expect(decodeBody(frame.value.payload)).toEqual({ ok: true, value: { text: json, value: JSON.parse(json) } });
        expect(decodeFrame(encodeFrame(frame.value))).toMatchObject({ ok: true, value: { id, type } });
      }),
      { numRuns: 200 },
    );
  });

  it('is a channel that says whose it is, with any name, in the long form', () => {
    fc.assert(
      fc.property(
        identifier,
        fc.constantFrom(...eventKinds),
        fc.constantFrom(...commandKinds),
        (name, kind, command) => {
          expect(parseAgentChannel(agentChannelName(name, kind))).toEqual({ kind, agentRef: name });
          expect(parseCommandChannel(commandChannelName(name, command))).toEqual({ kind: command, agentRef: name });
          expect(parseAgentChannel(`agent.${kind}`)).toEqual({ kind, agentRef: null });
        },
      ),
    );
  });
});

describe('an answer to an authentication', () => {
  it('is bare in the handoff dialect, and base64 of JSON in an envelope in the other', () => {
    const answer = { success: true, message: 'ok', backendKey: 'a2V5', sessionToken: 'tok', expiresAtMs: 1_999 };
    const said = { success: true, backend_key: 'a2V5', session_token: 'tok', expires_at: 1, message: 'ok' };
    expect(JSON.parse(encodeAuthAnswer('handoff', answer, { id: 'a', nowMs: 1_000 }))).toEqual(said);
    const frame = JSON.parse(encodeAuthAnswer('enveloped', answer, { id: 'a', nowMs: 1_000 }));
    expect(frame).toMatchObject({ channel: 'auth', timestamp: 1, nonce: '', signature: '' });
    expect(JSON.parse(Buffer.from(frame.payload, 'base64').toString())).toEqual(said);
  });
});

describe('base64', () => {
  it('is what encodes to the same text again, and nothing else', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        const text = Buffer.from(bytes).toString('base64');
        expect(decodeBase64(text)).toEqual(Buffer.from(bytes));
      }),
    );
    for (const alias of ['AB==', 'AA=', 'AA', 'A A=', '_-8=', 'AAAA====']) expect(decodeBase64(alias)).toBeNull();
  });
});

describe('the depth of JSON', () => {
  it.each([
    [maxJsonDepth, false],
    [maxJsonDepth + 1, true],
  ])('of %i is too deep: %s, whatever brackets the strings hold', (depth, expected) => {
    expect(isTooDeep(`${'['.repeat(depth)}"[[[\\"[[["${']'.repeat(depth)}`)).toBe(expected);
  });
});
