/** Opening what the backend sends to an enveloped agent, as the deployed agents do it (agent-wire: "Dialect enveloped"). */
import { z } from 'zod';
import type { CryptoSuite } from '../agent-gateway/crypto/suite.ts';
import { type CommandKind, commandKinds, shortCommandChannelName } from '../agent-gateway/wire/channels.ts';
import { decodeBase64 } from './base64.ts';
import { parseJson } from './v1-answers.ts';
import type { SecureMessage } from './v1-frames.ts';

/** A command that an agent acts on. */
export interface OpenedCommand {
  readonly frame: SecureMessage;
  readonly kind: CommandKind;
  /** The JSON text inside both layers of base64. */
  readonly text: string;
  /** That text, parsed. */
  readonly body: unknown;
}

/**
 * Why a frame had no effect: `malformed` is no frame at all, `unopened` cannot be decrypted, `undecodable` holds no
 * base64 of JSON, `unheard` is on a channel without a listener, `backend.<id>.policies` among them.
 */
export type DropReason = 'malformed' | 'unopened' | 'undecodable' | 'unheard';

export type CommandReading =
  | { readonly ok: true; readonly command: OpenedCommand }
  | { readonly ok: false; readonly reason: DropReason; readonly channel: string | null };

const frameShape = z.object({
  id: z.string(),
  type: z.string(),
  channel: z.string(),
  payload: z.string(),
  timestamp: z.number(),
  nonce: z.string(),
  signature: z.string().default(''),
  headers: z
    .record(z.string(), z.string())
    .nullish()
    .transform((headers) => headers ?? {}),
});

const commandNonceBytes = 12;
const kindOfChannel = new Map<string, CommandKind>(commandKinds.map((kind) => [shortCommandChannelName(kind), kind]));

/** SHA-256 over the agent's public key and the backend's key: public values both, so this hides nothing without TLS. */
export function commandSealingKey(suite: CryptoSuite, agentPublicKey: Uint8Array, backendKey: Uint8Array): Uint8Array {
  return suite.sha256(agentPublicKey, backendKey);
}

/** Reads a frame of the backend: parse, decrypt, decode, and only then look whether anyone listens on its channel. */
export function readCommand(suite: CryptoSuite, sealingKey: Uint8Array, frameText: string): CommandReading {
  const parsed = frameShape.safeParse(parseJson(frameText));
  if (!parsed.success) return { ok: false, reason: 'malformed', channel: null };
  const frame = parsed.data;
  const plaintext = openPayload(suite, sealingKey, frame);
  if (!plaintext) return { ok: false, reason: 'unopened', channel: frame.channel };
  const kind = kindOfChannel.get(frame.channel);
  if (!kind) return { ok: false, reason: 'unheard', channel: frame.channel };
  const inner = decodeBase64(Buffer.from(plaintext).toString('latin1'));
  const text = inner && Buffer.from(inner).toString('utf8');
  const body = text === null ? undefined : parseJson(text);
  if (text === null || body === undefined) return { ok: false, reason: 'undecodable', channel: frame.channel };
  return { ok: true, command: { frame, kind, text, body } };
}

function openPayload(suite: CryptoSuite, sealingKey: Uint8Array, frame: SecureMessage): Uint8Array | null {
  const sealed = decodeBase64(frame.payload);
  const nonce = decodeBase64(frame.nonce);
  if (!sealed || nonce?.length !== commandNonceBytes) return null;
  return suite.open(sealingKey, nonce, sealed);
}
