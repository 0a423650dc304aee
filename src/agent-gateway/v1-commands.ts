import type { FrameRecord } from '../messages/command-link.ts';
import type { CryptoSuite, SigningKey } from './crypto/suite.ts';
import { type CommandKind, shortCommandChannelName } from './wire/channels.ts';
import { encodeFrame, secureMessageSignedBytes, unixSeconds, type V1FrameType } from './wire/v1.ts';

/** A frame, and what of it is recorded. */
export interface SealedFrame extends FrameRecord {
  readonly text: string;
}

/** Makes command frames that one enveloped agent can open. */
export interface V1CommandSealer {
  seal(
    command: { readonly id: string; readonly type: V1FrameType; readonly kind: CommandKind; readonly payload: unknown },
    nowMs: number,
  ): SealedFrame;

  /** A frame that says nothing and that the agent drops: it extends the agent's read deadline, which pings of ours do not. */
  keepAlive(id: string, nowMs: number): string;
}

const nonceBytes = 12;

/**
 * The key is SHA-256 over the agent's and the gateway's public key; the plaintext is base64 of the JSON text, which agents
 * decode once more; the channel is the short one, the only one on which they listen; the signature is over
 * `id:type:channel:timestamp:payload` by the key whose public half is `backend_key` (agent-wire, "Dialect enveloped").
 */
export function createV1CommandSealer(
  suite: CryptoSuite,
  gatewayKey: SigningKey,
  agentPublicKey: Uint8Array,
): V1CommandSealer {
  const key = suite.sha256(agentPublicKey, gatewayKey.publicKey);

  function sealed(id: string, type: V1FrameType, channel: string, body: unknown, nowMs: number): SealedFrame {
    const nonce = suite.randomBytes(nonceBytes);
    const plaintext = Buffer.from(Buffer.from(JSON.stringify(body)).toString('base64'));
    const payload = Buffer.from(suite.seal(key, nonce, plaintext)).toString('base64');
    const timestamp = unixSeconds(nowMs);
    const signed = secureMessageSignedBytes({ id, type, channel, timestamp, payload });
    const signature = Buffer.from(gatewayKey.sign(signed)).toString('base64');
    const nonceText = Buffer.from(nonce).toString('base64');
    return {
      text: encodeFrame({ id, type, channel, payload, timestamp, nonce: nonceText, signature }),
      encryptedPayload: payload,
      nonce: nonceText,
      signature,
    };
  }

  return {
    seal: (command, nowMs) =>
      sealed(command.id, command.type, shortCommandChannelName(command.kind), command.payload, nowMs),
    keepAlive: (id, nowMs) => sealed(id, 'heartbeat', 'backend.heartbeat', {}, nowMs).text,
  };
}
