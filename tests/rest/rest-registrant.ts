import { z } from 'zod';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import type { SigningKey } from '../../src/agent-gateway/crypto/suite.ts';
import type { Call } from './rest-caller.ts';

export const challengeSchema = z.strictObject({
  registration_id: z.uuid(),
  nonce: z.string(),
  server_time: z.string(),
});
export type Challenge = z.infer<typeof challengeSchema>;

const registeredSchema = z.strictObject({ agent_uid: z.uuid(), bootstrap_token: z.string() });

/** A host that registers over HTTP. */
export interface Registrant {
  readonly hostId: string;
  readonly key: SigningKey;
  /** What else it tells of itself. */
  readonly facts?: Readonly<Record<string, unknown>>;
}

export function registrant(hostId: string, facts: Readonly<Record<string, unknown>> = {}): Registrant {
  return { hostId, key: nativeCrypto.generateSigningKey(), facts };
}

export function initBody({ hostId, key, facts }: Registrant) {
  return { host_id: hostId, agent_pubkey: Buffer.from(key.publicKey).toString('base64'), ...facts };
}

export async function begin(call: Call, host: Registrant): Promise<Challenge> {
  const answer = await call('POST', '/agents/register/init', { body: initBody(host), token: null });
  if (answer.status !== 200) throw new Error(`init: ${answer.status} ${answer.text}`);
  return challengeSchema.parse(answer.json);
}

/** The body that completes a registration; `signedHostId` is what the signature covers. */
export function completeBody(host: Registrant, challenge: Challenge, signedHostId = host.hostId) {
  const signed = Buffer.concat([
    Buffer.from(challenge.nonce, 'base64'),
    Buffer.from(challenge.server_time + signedHostId),
  ]);
  return {
    registration_id: challenge.registration_id,
    host_id: host.hostId,
    signature: Buffer.from(host.key.sign(signed)).toString('base64'),
  };
}

/** Registers a host from beginning to end. */
export async function register(call: Call, host: Registrant): Promise<z.infer<typeof registeredSchema>> {
  const challenge = await begin(call, host);
  const answer = await call('POST', '/agents/register/complete', { body: completeBody(host, challenge), token: null });
  if (answer.status !== 200) throw new Error(`complete: ${answer.status} ${answer.text}`);
  return registeredSchema.parse(answer.json);
}
