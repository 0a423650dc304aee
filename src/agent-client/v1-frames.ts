/**
 * The frames of protocol v1 as deployed agents write them, to the byte. Nothing here touches a socket, a clock or a
 * random source: the same inputs give the same text. Timestamps are Unix seconds.
 */
import type { CryptoSuite, SigningKey } from '../agent-gateway/crypto/suite.ts';
import { encodeBase64 } from './base64.ts';
import { encodeGoJson, encodeGoStruct, type JsonValue } from './go-json.ts';

/** The frame that everything but a handoff authentication travels in. */
export interface SecureMessage {
  readonly id: string;
  /** `request`, `response`, `event`, `heartbeat` or `ack`, unless a test wants something else. */
  readonly type: string;
  readonly channel: string;
  /** Base64; what is inside depends on the dialect. */
  readonly payload: string;
  readonly timestamp: number;
  /** Base64. */
  readonly nonce: string;
  /** Base64 of 64 bytes. */
  readonly signature: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** What an agent authenticates with, in either dialect. */
export type AuthenticationRequest = {
  readonly agent_id: string;
  readonly public_key: string;
  readonly timestamp: number;
  readonly nonce: string;
  readonly signature: string;
};

/** What an agent tells about its host when it registers. */
export type RegistrationFacts = {
  readonly org_id: string;
  readonly host_id: string;
  readonly agent_pubkey: string;
  readonly machine_id_hash: string;
  readonly agent_version: string;
  readonly capabilities: JsonValue;
  readonly platform: JsonValue;
  readonly network: JsonValue;
};

/** A message's body: a value, written as Go writes JSON, or bytes taken as they are. */
export type MessageBody = JsonValue | Uint8Array;

/** Signs an authentication: Ed25519 over `agent_id:public_key:timestamp:nonce`, the nonce in base64 as it is sent. */
export function authenticationRequest(input: {
  key: SigningKey;
  agentId: string;
  timestamp: number;
  nonce: Uint8Array;
}): AuthenticationRequest {
  const publicKey = encodeBase64(input.key.publicKey);
  const nonce = encodeBase64(input.nonce);
  return {
    agent_id: input.agentId,
    public_key: publicKey,
    timestamp: input.timestamp,
    nonce,
    signature: signText(input.key, identitySignatureText(input.agentId, publicKey, input.timestamp, nonce)),
  };
}

/** The first frame of the handoff dialect: the bare request, in the order of Go's struct. */
export function encodeHandoffAuthentication(request: AuthenticationRequest): string {
  return encodeGoStruct([
    ['agent_id', request.agent_id],
    ['public_key', request.public_key],
    ['timestamp', request.timestamp],
    ['nonce', request.nonce],
    ['signature', request.signature],
  ]);
}

/** The first frame of the enveloped dialect. */
export function encodeEnvelopedAuthentication(id: string, request: AuthenticationRequest): string {
  return encodeRequest('auth', id, request.timestamp, request);
}

/** `agent.registration` */
export function encodeRegistration(id: string, timestamp: number, facts: RegistrationFacts): string {
  return encodeRequest('agent.registration', id, timestamp, facts);
}

/** `agent.registration.complete`, signed over the raw nonce bytes followed by `server_time` and `host_id`. */
export function encodeRegistrationComplete(input: {
  id: string;
  timestamp: number;
  key: SigningKey;
  registrationId: string;
  nonce: Uint8Array;
  serverTime: string;
  hostId: string;
}): string {
  const signed = Buffer.concat([input.nonce, Buffer.from(input.serverTime + input.hostId, 'utf8')]);
  return encodeRequest('agent.registration.complete', input.id, input.timestamp, {
    registration_id: input.registrationId,
    host_id: input.hostId,
    signature: encodeBase64(input.key.sign(signed)),
  });
}

/** What builds a message in either dialect. */
export interface MessageInput {
  readonly key: SigningKey;
  readonly id: string;
  readonly type: string;
  readonly channel: string;
  readonly timestamp: number;
  readonly nonce: Uint8Array;
  readonly body: MessageBody;
  readonly headers?: Readonly<Record<string, string>>;
}

/**
 * An enveloped message: the body in plain base64, signed over `identifier:public_key:timestamp:nonce`. The signature
 * covers neither id, channel nor payload. `identifier` is the uid once the agent has one, else its name.
 */
export function envelopedMessage(input: MessageInput & { readonly identifier: string }): SecureMessage {
  const nonce = encodeBase64(input.nonce);
  const publicKey = encodeBase64(input.key.publicKey);
  const signed = identitySignatureText(input.identifier, publicKey, input.timestamp, nonce);
  return {
    id: input.id,
    type: input.type,
    channel: input.channel,
    payload: encodeBase64(bodyBytes(input.body)),
    timestamp: input.timestamp,
    nonce,
    signature: signText(input.key, signed),
    headers: input.headers ?? {},
  };
}

/** A handoff message: the body sealed without associated data, signed over `id:type:channel:timestamp:payload`. */
export function handoffMessage(
  input: MessageInput & { readonly suite: CryptoSuite; readonly sealingKey: Uint8Array },
): SecureMessage {
  const payload = encodeBase64(input.suite.seal(input.sealingKey, input.nonce, bodyBytes(input.body)));
  const unsigned = {
    id: input.id,
    type: input.type,
    channel: input.channel,
    payload,
    timestamp: input.timestamp,
    nonce: encodeBase64(input.nonce),
    headers: input.headers ?? {},
  };
  return { ...unsigned, signature: signText(input.key, messageSignatureText(unsigned)) };
}

/** SHA-256 over the agent's 64-byte private key (seed, then public key) and the backend's key. */
export function handoffSealingKey(
  suite: CryptoSuite,
  seed: Uint8Array,
  publicKey: Uint8Array,
  backendKey: Uint8Array,
): Uint8Array {
  return suite.sha256(seed, publicKey, backendKey);
}

/** Writes a SecureMessage in the order of Go's struct. */
export function encodeSecureMessage(message: SecureMessage): string {
  return encodeGoStruct([
    ['id', message.id],
    ['type', message.type],
    ['channel', message.channel],
    ['payload', message.payload],
    ['timestamp', message.timestamp],
    ['nonce', message.nonce],
    ['signature', message.signature],
    ['headers', message.headers],
  ]);
}

/** What authentications and enveloped messages sign. */
export function identitySignatureText(
  identifier: string,
  publicKeyBase64: string,
  timestamp: number,
  nonceBase64: string,
): string {
  return `${identifier}:${publicKeyBase64}:${timestamp}:${nonceBase64}`;
}

/** What handoff messages, and commands from the backend, sign. */
export function messageSignatureText(
  message: Pick<SecureMessage, 'id' | 'type' | 'channel' | 'timestamp' | 'payload'>,
): string {
  return `${message.id}:${message.type}:${message.channel}:${message.timestamp}:${message.payload}`;
}

/** The handshake's requests are maps in the agent's source: keys in alphabetical order, no nonce, no signature. */
function encodeRequest(
  channel: string,
  id: string,
  timestamp: number,
  body: { readonly [key: string]: JsonValue },
): string {
  return encodeGoJson({
    channel,
    headers: {},
    id,
    payload: encodeBase64(encodeGoJson(body)),
    timestamp,
    type: 'request',
  });
}

function bodyBytes(body: MessageBody): Uint8Array {
  return body instanceof Uint8Array ? body : Buffer.from(encodeGoJson(body), 'utf8');
}

function signText(key: SigningKey, text: string): string {
  return encodeBase64(key.sign(Buffer.from(text, 'utf8')));
}
