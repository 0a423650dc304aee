/** What the backend answers during the handshake of protocol v1, parsed as a deployed agent reads it. */
import { z } from 'zod';
import { decodeBase64 } from './base64.ts';

/** What a successful authentication grants. */
export interface AuthenticationGrant {
  /** 32 raw bytes, the public half of the key that signs commands. */
  readonly backendKey: Uint8Array;
  readonly sessionToken: string;
  /** Unix seconds. */
  readonly expiresAt: number;
}

export interface RegistrationChallenge {
  readonly registrationId: string;
  readonly nonce: Uint8Array;
  /** As sent: `2026-11-23T12:16:12Z`. It is signed as text. */
  readonly serverTime: string;
}

export interface RegistrationGrant {
  readonly uid: string;
  readonly bootstrapToken: string;
}

/** An answer, or why it is none. `refused` tells a well-formed "no" from what cannot be read. */
export type Answer<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly refused: boolean; readonly reason: string };

const envelope = z.object({ channel: z.string(), payload: z.string() });
const grant = z.object({
  success: z.boolean(),
  backend_key: z.string().default(''),
  session_token: z.string().default(''),
  expires_at: z.number().default(0),
  message: z.string().default(''),
});
const challenge = z.object({ registration_id: z.string().min(1), nonce: z.string(), server_time: z.string() });
const registered = z.object({ agent_uid: z.string().min(1), bootstrap_token: z.string() });

/** The bare object that answers a handoff authentication. */
export function readHandoffGrant(frameText: string): Answer<AuthenticationGrant> {
  return readGrant(frameText);
}

/** The frame on `auth`: its payload is base64 of the JSON text. */
export function readEnvelopedGrant(frameText: string): Answer<AuthenticationGrant> {
  const payload = readPayload(frameText, 'auth');
  if (!payload.ok) return payload;
  const json = decodeBase64(payload.value);
  return json ? readGrant(Buffer.from(json).toString('utf8')) : broken('the payload of auth is not base64');
}

/** The frame on `agent.registration`: its payload is the JSON text itself. */
export function readRegistrationChallenge(frameText: string): Answer<RegistrationChallenge> {
  const payload = readPayload(frameText, 'agent.registration');
  if (!payload.ok) return payload;
  const parsed = challenge.safeParse(parseJson(payload.value));
  const nonce = parsed.success ? decodeBase64(parsed.data.nonce) : null;
  if (!parsed.success || !nonce) return broken('the payload is no registration challenge');
  return accepted({ registrationId: parsed.data.registration_id, nonce, serverTime: parsed.data.server_time });
}

/** The frame on `agent.registration.complete`: its payload is the JSON text itself. */
export function readRegistrationGrant(frameText: string): Answer<RegistrationGrant> {
  const payload = readPayload(frameText, 'agent.registration.complete');
  if (!payload.ok) return payload;
  const parsed = registered.safeParse(parseJson(payload.value));
  if (!parsed.success) return broken('the payload holds no agent_uid');
  return accepted({ uid: parsed.data.agent_uid, bootstrapToken: parsed.data.bootstrap_token });
}

/** The value of a JSON text; undefined, which no JSON text has, for anything else. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function readGrant(json: string): Answer<AuthenticationGrant> {
  const parsed = grant.safeParse(parseJson(json));
  if (!parsed.success) return broken('the answer to the authentication cannot be read');
  if (!parsed.data.success) return { ok: false, refused: true, reason: parsed.data.message || 'no reason given' };
  const backendKey = decodeBase64(parsed.data.backend_key);
  if (backendKey?.length !== 32) return broken('backend_key is not base64 of 32 bytes');
  return accepted({ backendKey, sessionToken: parsed.data.session_token, expiresAt: parsed.data.expires_at });
}

function readPayload(frameText: string, channel: string): Answer<string> {
  const parsed = envelope.safeParse(parseJson(frameText));
  if (!parsed.success) return broken(`expected a frame on ${channel}, got something else`);
  if (parsed.data.channel !== channel)
    return broken(`expected a frame on ${channel}, got one on ${parsed.data.channel}`);
  return accepted(parsed.data.payload);
}

function accepted<Value>(value: Value): Answer<Value> {
  return { ok: true, value };
}

function broken(reason: string): { readonly ok: false; readonly refused: false; readonly reason: string } {
  return { ok: false, refused: false, reason };
}
