import { z } from 'zod';
import { isIdentifier, isStorableJson } from '../agent-gateway/wire/text.ts';
import { AegisError } from '../errors.ts';
import type { RegistrationProof, RegistrationRequest } from './registration.ts';

/** Registration frames as agents send them over their socket: field names of agent-wire, empty texts for what is absent. */
const identifier = z.string().refine(isIdentifier, 'must be 1 to 255 characters without control characters');
const optionalIdentifier = z
  .union([z.literal(''), identifier])
  .nullish()
  .transform((text) => text || undefined);
/** Kept in `jsonb`, which takes neither NUL nor half of a surrogate pair, escaped or not. */
const storedJson = z
  .unknown()
  .refine((value) => isStorable(value), 'holds text that cannot be stored')
  .transform((value) => value ?? undefined);

const requestBody = z.object({
  org_id: optionalIdentifier,
  host_id: identifier,
  agent_pubkey: z.string().catch(''),
  machine_id_hash: optionalIdentifier,
  agent_version: optionalIdentifier,
  capabilities: storedJson,
  platform: storedJson,
  network: storedJson,
});

const proofBody = z.object({
  registration_id: z.string().catch(''),
  host_id: z.string().catch(''),
  signature: z.string().catch(''),
});

/** Throws BAD_USER_INPUT, naming the field. */
export function parseRegistrationRequest(body: unknown): RegistrationRequest {
  const parsed = requestBody.safeParse(body);
  if (!parsed.success) throw badInput(parsed.error);
  const { org_id, host_id, agent_pubkey, machine_id_hash, agent_version, ...facts } = parsed.data;
  return {
    orgId: org_id,
    hostId: host_id,
    publicKey: agent_pubkey,
    machineIdHash: machine_id_hash,
    agentVersion: agent_version,
    ...facts,
  };
}

/** Throws BAD_USER_INPUT where the body is no object; wrong fields are wrong values, which the registration judges. */
export function parseRegistrationProof(body: unknown, remoteAddress: string | null): RegistrationProof {
  const parsed = proofBody.safeParse(body);
  if (!parsed.success) throw badInput(parsed.error);
  const { registration_id, host_id, signature } = parsed.data;
  return { registrationId: registration_id, hostId: host_id, signature, remoteAddress };
}

function badInput(error: z.ZodError): AegisError {
  const [issue] = error.issues;
  return new AegisError('BAD_USER_INPUT', `${issue?.path.join('.') || 'body'}: ${issue?.message ?? 'not valid'}`);
}

function isStorable(value: unknown): boolean {
  if (value === undefined || value === null) return true;
  return isStorableJson(JSON.stringify(value));
}
