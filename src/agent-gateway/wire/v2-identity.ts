import { decodeUtf8, utf8 } from './bytes.ts';
import { type Decoded, decoded, refused } from './errors.ts';
import { isRecord, parseObject } from './json.ts';
import { isIdentifier, isStorableJson, isTooDeep } from './text.ts';

/** What an agent says of itself inside M3, in its own words until the gateway has looked it up. */
export interface V2Identity {
  /** The agent's name. */
  readonly agentId: string;
  /** Null for the deployment's default organisation. */
  readonly orgId: string | null;
  /** With the first handshake, and whenever the agent has an enrolment token or news of its host. */
  readonly enroll: V2Enrollment | null;
}

export interface V2Enrollment {
  readonly token: string | null;
  readonly hostId: string;
  readonly agentVersion: string | null;
  readonly machineIdHash: string | null;
  /** JSON values of any shape, undefined where absent. */
  readonly platform: unknown;
  readonly network: unknown;
  readonly capabilities: unknown;
}

/** Longest identity, in bytes. */
export const maxIdentityBytes = 8_192;

export function encodeIdentity({ agentId, orgId, enroll }: V2Identity): Uint8Array {
  return utf8(
    JSON.stringify({
      agent_id: agentId,
      org_id: orgId ?? undefined,
      enroll: enroll ? enrollmentFields(enroll) : undefined,
    }),
  );
}

function enrollmentFields(enroll: V2Enrollment): object {
  return {
    token: enroll.token ?? undefined,
    host_id: enroll.hostId,
    agent_version: enroll.agentVersion ?? undefined,
    machine_id_hash: enroll.machineIdHash ?? undefined,
    platform: enroll.platform,
    network: enroll.network,
    capabilities: enroll.capabilities,
  };
}

/** Refused as HANDSHAKE_FAILED: whoever gets this far with nonsense holds a key, and is told no more than anyone else. */
export function decodeIdentity(bytes: Uint8Array): Decoded<V2Identity> {
  const text = bytes.length > maxIdentityBytes ? null : decodeUtf8(bytes);
  const fields = text === null || isTooDeep(text) ? null : parseObject(text);
  if (!fields || !isStorableJson(JSON.stringify(fields))) return refused('HANDSHAKE_FAILED');
  const { agent_id: agentId, org_id: orgId = null } = fields;
  const enroll = fields.enroll === undefined ? null : decodeEnrollment(fields.enroll);
  if (!isIdentifier(agentId) || !isOptionalIdentifier(orgId) || enroll === undefined)
    return refused('HANDSHAKE_FAILED');
  return decoded({ agentId, orgId, enroll });
}

function decodeEnrollment(value: unknown): V2Enrollment | undefined {
  if (!isRecord(value)) return undefined;
  const {
    token = null,
    host_id: hostId,
    agent_version: agentVersion = null,
    machine_id_hash: machineIdHash = null,
  } = value;
  if (!isIdentifier(hostId) || !isOptionalIdentifier(token)) return undefined;
  if (!isOptionalIdentifier(agentVersion) || !isOptionalIdentifier(machineIdHash)) return undefined;
  const { platform, network, capabilities } = value;
  return { token, hostId, agentVersion, machineIdHash, platform, network, capabilities };
}

function isOptionalIdentifier(value: unknown): value is string | null {
  return value === null || isIdentifier(value);
}
