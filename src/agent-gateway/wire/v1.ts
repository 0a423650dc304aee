import { type Decoded, decoded, refused } from './errors.ts';
import { isRecord, parseObject } from './json.ts';
import { decodeBase64, isIdentifier, isTooDeep, maxIdLength } from './text.ts';

/**
 * Protocol v1, as deployed agents speak it (agent-wire/README.md): text frames of JSON in two dialects. Pure: text in,
 * values or coded errors out, and back. Signatures are not checked here.
 */

/** The envelope of every frame but a handoff agent's first: a SecureMessage. */
export interface V1Frame {
  readonly id: string;
  readonly type: V1FrameType;
  readonly channel: string;
  readonly payload: string;
  /** As sent, since signatures are over it; the time that it means is `timestampMs`. */
  readonly timestamp: string;
  readonly timestampMs: number;
  readonly nonce: string;
  readonly signature: string;
  readonly headers: Readonly<Record<string, unknown>>;
}

export const v1FrameTypes = ['request', 'response', 'event', 'heartbeat', 'ack'] as const;
export type V1FrameType = (typeof v1FrameTypes)[number];

export const authChannel = 'auth';
export const registrationChannel = 'agent.registration';
export const registrationCompleteChannel = 'agent.registration.complete';

/** An agent's claim to be who it says, with the proof. */
export interface V1AuthRequest {
  readonly agentId: string;
  /** Standard base64, as sent. */
  readonly publicKey: string;
  readonly publicKeyBytes: Uint8Array;
  readonly timestampMs: number;
  readonly nonce: string;
  readonly signature: Uint8Array;
  /** The UTF-8 string `agent_id:public_key:timestamp:nonce`. */
  readonly signedBytes: Uint8Array;
}

export type V1Dialect = 'handoff' | 'enveloped';

export interface V1FirstFrame {
  readonly dialect: V1Dialect;
  readonly request: Decoded<V1AuthRequest>;
}

const authNonceBytes = 16;

/**
 * The first frame of a link, which tells the dialect: the handoff one has no channel. `request` is refused as AUTH_MALFORMED
 * where it is none; the dialect is there all the same, for the answer. What is no JSON object passes for enveloped.
 */
export function decodeFirstFrame(text: string): V1FirstFrame {
  const outer = parseObject(text);
  if (outer && !Object.hasOwn(outer, 'channel')) return { dialect: 'handoff', request: decodeAuthRequest(outer) };
  const payload = outer?.channel === authChannel ? outer.payload : null;
  const body = typeof payload === 'string' ? decodeObjectBody(payload) : null;
  return { dialect: 'enveloped', request: decodeAuthRequest(body) };
}

function decodeAuthRequest(body: Readonly<Record<string, unknown>> | null): Decoded<V1AuthRequest> {
  if (!body) return refused('AUTH_MALFORMED');
  const { agent_id: agentId, public_key: publicKey, timestamp, nonce, signature } = body;
  if (!isIdentifier(agentId) || typeof publicKey !== 'string' || typeof nonce !== 'string')
    return refused('AUTH_MALFORMED');
  if (typeof signature !== 'string' || !isUnixSeconds(timestamp)) return refused('AUTH_MALFORMED');
  const publicKeyBytes = decodeBase64(publicKey);
  const signatureBytes = decodeBase64(signature);
  if (publicKeyBytes?.length !== 32 || signatureBytes?.length !== 64) return refused('AUTH_MALFORMED');
  if (decodeBase64(nonce)?.length !== authNonceBytes) return refused('AUTH_MALFORMED');
  return decoded({
    agentId,
    publicKey,
    publicKeyBytes,
    timestampMs: timestamp * 1_000,
    nonce,
    signature: signatureBytes,
    signedBytes: Buffer.from(`${agentId}:${publicKey}:${timestamp}:${nonce}`),
  });
}

/** Any frame after the first. */
export function decodeFrame(text: string): Decoded<V1Frame> {
  const frame = parseObject(text);
  if (!frame) return refused('FRAME_MALFORMED');
  const { id, type, channel, payload, timestamp, nonce = '', signature = '', headers } = frame;
  if (!isIdentifier(id)) return refused('FRAME_ID_INVALID');
  const knownType = v1FrameTypes.find((candidate) => candidate === type);
  if (!knownType || typeof channel !== 'string' || typeof payload !== 'string') return refused('FRAME_MALFORMED');
  if (!isUnixSeconds(timestamp) || typeof nonce !== 'string' || typeof signature !== 'string')
    return refused('FRAME_MALFORMED');
  return decoded({
    id,
    type: knownType,
    channel,
    payload,
    timestamp: String(timestamp),
    timestampMs: timestamp * 1_000,
    nonce,
    signature,
    headers: isRecord(headers) ? headers : {},
  });
}

/** What an agent says in the body of a frame. */
export interface V1Body {
  /** JSON text that says what the agent said: its own text where that is JSON, else a JSON string of it. */
  readonly text: string;
  readonly value: unknown;
}

/**
 * The body of an enveloped agent's frame: base64 of JSON. What is not JSON is kept as text, what is not base64 or not UTF-8
 * as it was sent: an alarm is not lost because it is odd.
 */
export function decodeBody(payload: string): Decoded<V1Body> {
  const bytes = decodeBase64(payload);
  const text = bytes && decodeUtf8(bytes);
  if (text === null) return decoded(textBody(payload));
  if (isTooDeep(text)) return refused('FRAME_PAYLOAD_TOO_DEEP');
  try {
    return decoded({ text, value: JSON.parse(text) });
  } catch {
    return decoded(textBody(text));
  }
}

/** The body of a registration frame: base64 of a JSON object, or null. */
export function decodeObjectBody(payload: string): Readonly<Record<string, unknown>> | null {
  const bytes = decodeBase64(payload);
  const text = bytes && decodeUtf8(bytes);
  return text === null || isTooDeep(text) ? null : parseObject(text);
}

/** What an enveloped agent signs: neither payload nor channel nor id, so it proves the key and the second, no more. */
export function envelopedSignedBytes(identifier: string, publicKey: string, frame: V1Frame): Uint8Array {
  return Buffer.from(`${identifier}:${publicKey}:${frame.timestamp}:${frame.nonce}`);
}

/** What a handoff agent signs, and what the gateway signs in every command. */
export function secureMessageSignedBytes(
  frame: Pick<V1Frame, 'id' | 'type' | 'channel' | 'timestamp' | 'payload'>,
): Uint8Array {
  return Buffer.from(`${frame.id}:${frame.type}:${frame.channel}:${frame.timestamp}:${frame.payload}`);
}

/** The answer to an authentication request. */
export interface V1AuthAnswer {
  readonly success: boolean;
  readonly message: string;
  /** With success: standard base64 of the gateway's public key. */
  readonly backendKey?: string;
  /** With success; agents print its first 20 characters, so it has at least those. */
  readonly sessionToken?: string;
  readonly expiresAtMs?: number;
  /** Without success: a code of the error catalogue. */
  readonly code?: string;
}

/** In the handoff dialect the answer is bare; in the enveloped one it is base64 of JSON in an envelope. */
export function encodeAuthAnswer(
  dialect: V1Dialect,
  answer: V1AuthAnswer,
  frame: { readonly id: string; readonly nowMs: number },
): string {
  const body = JSON.stringify({
    success: answer.success,
    backend_key: answer.backendKey,
    session_token: answer.sessionToken,
    expires_at: answer.expiresAtMs === undefined ? undefined : Math.floor(answer.expiresAtMs / 1_000),
    message: answer.message,
    code: answer.code,
  });
  if (dialect === 'handoff') return body;
  return encodeAnswer(frame.id, authChannel, Buffer.from(body).toString('base64'), frame.nowMs);
}

/** A plain answer: `payload` goes as it is. Registration's is the JSON text itself, not base64. */
export function encodeAnswer(id: string, channel: string, payload: string, nowMs: number): string {
  return encodeFrame({
    id,
    type: 'response',
    channel,
    payload,
    timestamp: unixSeconds(nowMs),
    nonce: '',
    signature: '',
  });
}

/** A frame to an agent, with fields in the order of the recordings. */
export function encodeFrame(frame: {
  readonly id: string;
  readonly type: V1FrameType;
  readonly channel: string;
  readonly payload: string;
  readonly timestamp: string;
  readonly nonce: string;
  readonly signature: string;
}): string {
  const { id, type, channel, payload, timestamp, nonce, signature } = frame;
  return JSON.stringify({ id, type, channel, payload, timestamp: Number(timestamp), nonce, signature, headers: {} });
}

export function unixSeconds(ms: number): string {
  return String(Math.floor(ms / 1_000));
}

function isUnixSeconds(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= maxUnixSeconds;
}

/** The end of year 9999. */
const maxUnixSeconds = 253_402_300_799;

const strictUtf8 = new TextDecoder('utf-8', { fatal: true });

function decodeUtf8(bytes: Uint8Array): string | null {
  try {
    return strictUtf8.decode(bytes);
  } catch {
    return null;
  }
}

function textBody(text: string): V1Body {
  return { text: JSON.stringify(text), value: text };
}

/** The id of the message that a frame answers, where it says so in a header. */
export function answeredId(frame: V1Frame): string | null {
  for (const name of ['request_id', 'ack_for', 'reply_to']) {
    const value = frame.headers[name];
    if (typeof value === 'string' && value.length <= maxIdLength) return value;
  }
  return null;
}
