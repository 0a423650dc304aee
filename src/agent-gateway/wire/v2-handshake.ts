import { decodeBase64Url, decodeUtf8, encodeBase64Url, utf8 } from './bytes.ts';
import { type Decoded, decoded, refused } from './errors.ts';
import { isRecord, parseObject } from './json.ts';
import { maxHandshakeFrameLength } from './v2-limits.ts';

/**
 * The three text frames of the v2 handshake. Pure: text in, values or a coded error out, and back. Bodies come with the exact
 * bytes that were received, since these are what is hashed. Unknown members are ignored.
 */

/** What the agent says of the channel below: whether the handshake is bound to its TLS connection. */
export const channelBindings = ['none', 'tls-exporter'] as const;
export type ChannelBinding = (typeof channelBindings)[number];

export interface M1 {
  /** The agent's X25519 public key, 32 bytes. */
  readonly ephemeral: Uint8Array;
  /** 32 random bytes. */
  readonly nonce: Uint8Array;
  readonly channelBinding: ChannelBinding;
  readonly caps: readonly string[];
}

export interface M2 {
  readonly ephemeral: Uint8Array;
  readonly nonce: Uint8Array;
  /** 16 random bytes. */
  readonly sessionId: Uint8Array;
  /** The fingerprint of the gateway's key: 64 hexadecimal digits. */
  readonly keyId: string;
  readonly caps: readonly string[];
}

/** With the bytes that were hashed. */
export type Received<Message> = Message & { readonly body: Uint8Array };

/** body2 in the clear, and the sealed proof of the gateway's identity. */
export type ReceivedM2 = Received<M2> & { readonly proof: Uint8Array };

const keyBytes = 32;
export const sessionIdBytes = 16;
const maxCaps = 16;
const capPattern = /^[a-z0-9-]{1,32}$/;
const keyIdPattern = /^[0-9a-f]{64}$/;

export function encodeM1Body({ ephemeral, nonce, channelBinding, caps }: M1): Uint8Array {
  const [e, n] = [encodeBase64Url(ephemeral), encodeBase64Url(nonce)];
  return utf8(JSON.stringify({ v: 2, e, n, cb: channelBinding, caps }));
}

export function encodeM2Body({ ephemeral, nonce, sessionId, keyId, caps }: M2): Uint8Array {
  const [e, n, sid] = [encodeBase64Url(ephemeral), encodeBase64Url(nonce), encodeBase64Url(sessionId)];
  return utf8(JSON.stringify({ v: 2, e, n, sid, kid: keyId, caps }));
}

export function encodeM1(body: Uint8Array): string {
  return JSON.stringify({ m1: encodeBase64Url(body) });
}

export function encodeM2(body: Uint8Array, proof: Uint8Array): string {
  return JSON.stringify({ m2: encodeBase64Url(body), auth: encodeBase64Url(proof) });
}

export function encodeM3(proof: Uint8Array): string {
  return JSON.stringify({ m3: encodeBase64Url(proof) });
}

export function decodeM1(text: string): Decoded<Received<M1>> {
  const body = fieldBytes(parseFrame(text), 'm1');
  const fields = body && decodeBody(body);
  const channelBinding = channelBindings.find((known) => known === fields?.cb);
  if (!body || !fields || !channelBinding) return refused('HANDSHAKE_FAILED');
  const { ephemeral, nonce, caps } = fields;
  return decoded({ body, ephemeral, nonce, channelBinding, caps });
}

export function decodeM2(text: string): Decoded<ReceivedM2> {
  const frame = parseFrame(text);
  const [body, proof] = [fieldBytes(frame, 'm2'), fieldBytes(frame, 'auth')];
  const fields = body && decodeBody(body);
  if (!body || !proof || !fields) return refused('HANDSHAKE_FAILED');
  const { ephemeral, nonce, caps, kid: keyId } = fields;
  const sessionId = bytesOf(fields.sid, sessionIdBytes);
  if (!sessionId || typeof keyId !== 'string' || !keyIdPattern.test(keyId)) return refused('HANDSHAKE_FAILED');
  return decoded({ body, proof, ephemeral, nonce, sessionId, keyId, caps });
}

/** The sealed proof of the agent's identity. */
export function decodeM3(text: string): Decoded<Uint8Array> {
  const proof = fieldBytes(parseFrame(text), 'm3');
  return proof ? decoded(proof) : refused('HANDSHAKE_FAILED');
}

function parseFrame(text: string): Readonly<Record<string, unknown>> | null {
  return text.length > maxHandshakeFrameLength ? null : parseObject(text);
}

function fieldBytes(frame: Readonly<Record<string, unknown>> | null, name: string): Uint8Array | null {
  const field = frame?.[name];
  return typeof field === 'string' && field !== '' ? decodeBase64Url(field) : null;
}

interface CommonFields extends Readonly<Record<string, unknown>> {
  readonly ephemeral: Uint8Array;
  readonly nonce: Uint8Array;
  readonly caps: readonly string[];
}

/** What M1 and M2 have in common, with the rest as it came. */
function decodeBody(body: Uint8Array): CommonFields | null {
  const text = decodeUtf8(body);
  const fields = text === null ? null : parseObject(text);
  if (!isRecord(fields) || fields.v !== 2) return null;
  const [ephemeral, nonce] = [bytesOf(fields.e, keyBytes), bytesOf(fields.n, keyBytes)];
  const { caps } = fields;
  return ephemeral && nonce && isCaps(caps) ? { ...fields, ephemeral, nonce, caps } : null;
}

function bytesOf(field: unknown, length: number): Uint8Array | null {
  const bytes = typeof field === 'string' ? decodeBase64Url(field) : null;
  return bytes?.length === length ? bytes : null;
}

function isCaps(caps: unknown): caps is readonly string[] {
  return (
    Array.isArray(caps) &&
    caps.length <= maxCaps &&
    caps.every((cap) => typeof cap === 'string' && capPattern.test(cap)) &&
    new Set(caps).size === caps.length
  );
}
