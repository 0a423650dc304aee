import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import type { SigningKey } from '../../src/agent-gateway/crypto/suite.ts';

const recordLine = z.object({
  ev: z.string().optional(),
  dir: z.enum(['in', 'out']).optional(),
  headers: z.record(z.string(), z.string()).optional(),
  frame: z.record(z.string(), z.json()).optional(),
});

export interface RecordedFrame {
  readonly direction: 'in' | 'out';
  /** The frame as it stands in the recording, to the byte. */
  readonly text: string;
  readonly channel: string | null;
}

const secureMessage = z.object({
  id: z.string(),
  type: z.string(),
  channel: z.string(),
  payload: z.string(),
  timestamp: z.number(),
  nonce: z.string().default(''),
  signature: z.string().default(''),
});
export type RecordedMessage = z.infer<typeof secureMessage>;

/** The frames of `tests/recordings/<name>.jsonl`, in order. */
export function recordedFrames(name: 'enveloped' | 'handoff'): RecordedFrame[] {
  return lines(name).flatMap((line) => {
    const { dir, frame } = recordLine.parse(JSON.parse(line));
    if (!dir || !frame) return [];
    const text = line.slice(line.indexOf('"frame":') + '"frame":'.length, -1);
    return [{ direction: dir, text, channel: typeof frame.channel === 'string' ? frame.channel : null }];
  });
}

/** The headers of each upgrade request, without those of any WebSocket client. */
export function recordedUpgrades(name: 'enveloped' | 'handoff'): Record<string, string>[] {
  return lines(name).flatMap((line) => {
    const { ev, headers } = recordLine.parse(JSON.parse(line));
    if (ev !== 'open' || !headers) return [];
    return [Object.fromEntries(Object.entries(headers).filter(([header]) => /^(user-agent|x-)/.test(header)))];
  });
}

export function parseMessage(frame: RecordedFrame): RecordedMessage {
  return secureMessage.parse(JSON.parse(frame.text));
}

export function fromBase64(text: string): Buffer {
  return Buffer.from(text, 'base64');
}

/** A key whose private half is lost: it "signs" with the recorded signature, once that proves right for the message. */
export function recordedKey(publicKeyBase64: string, signatureBase64: string): SigningKey {
  const publicKey = fromBase64(publicKeyBase64);
  return {
    publicKey,
    sign(message) {
      const signature = fromBase64(signatureBase64);
      if (!nativeCrypto.verify(publicKey, message, signature))
        throw new Error('the recorded signature is of another message');
      return signature;
    },
  };
}

function lines(name: 'enveloped' | 'handoff'): string[] {
  return readFileSync(new URL(`../recordings/${name}.jsonl`, import.meta.url), 'utf8')
    .trim()
    .split('\n');
}
