import { randomBytes } from 'node:crypto';
import type { TransactionSql } from 'postgres';
import { agentActor } from '../audit/actor.ts';
import { auditing } from '../audit/auditing.ts';
import type { NoteRefusal } from '../audit/refusals.ts';
import type { Clock } from '../clock.ts';
import type { Database } from '../db/database.ts';
import { AegisError, type ErrorCode } from '../errors.ts';
import type { AdmissionPolicy } from './admission-policy.ts';
import {
  type AgentRecord,
  adoptKeys,
  insertAgents,
  lockByName,
  lockByUid,
  pendKeys,
  rememberV1Keys,
} from './admission-queries.ts';
import { type AgentDescription, describeAgent } from './agent-description.ts';
import { decideKey } from './key-policy.ts';
import { keyFingerprint, tokenHash } from './keys.ts';
import { uuidOrNull } from './queries.ts';
import type { RegisteredAgent, RegisteringLink, Registration, RegistrationProof } from './registration.ts';

/** A registration is to be completed within this time. */
const registrationTtlMs = 5 * 60_000;

/** Verifies Ed25519 signatures; the composition root gives it, since this part knows no crypto of its own. */
export interface SignatureCheck {
  verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;
  isPublicKey(publicKey: Uint8Array): boolean;
}

interface PendingRegistration {
  readonly org_id: string;
  readonly host_id: string;
  readonly public_key: string;
  readonly nonce: string;
  readonly server_time: string;
  readonly details: RegistrationDetails;
}

/** What an agent proved, and from where. */
interface RegistrationKey {
  readonly publicKey: string;
  readonly remoteAddress: string | null;
}

type RegistrationDetails = Omit<AgentDescription, 'hostId'>;

export function createRegistration(deps: {
  readonly database: Database;
  /** What time it is. */
  readonly wall: Pick<Clock, 'now'>;
  readonly policy: AdmissionPolicy;
  readonly signatures: SignatureCheck;
  readonly noteRefusal: NoteRefusal;
}): Registration {
  const { wall, policy, signatures } = deps;
  const { sql } = deps.database;

  async function enrolled(
    tx: TransactionSql,
    pending: PendingRegistration,
    link: RegisteringLink | undefined,
    remoteAddress: string | null,
  ): Promise<AgentRecord> {
    const orgId = policy.enrollment === 'open' ? pending.org_id : policy.defaultOrg;
    const linked = link ? await lockByUid(tx, link.agentUid) : null;
    if (linked) checkMayRegister(linked, remoteAddress);
    if (linked && (linked.orgId === orgId || policy.enrollment !== 'open')) return linked;
    const name = linked?.name ?? pending.host_id;
    const known = await lockByName(tx, orgId, name);
    // An agent that authenticated under a new name stands in the default organisation until its registration says where it
    // belongs: it moves there, or makes way for the agent that already has its name there. Only its own key may move it.
    const isProvisional = linked !== null && linked.registeredAt === null && linked.publicKey === pending.public_key;
    if (!known && isProvisional) return move(tx, linked, orgId, remoteAddress);
    if (known && isProvisional) await remove(tx, linked, known, remoteAddress);
    const shown = { publicKey: pending.public_key, remoteAddress };
    return known ? judged(tx, known, shown) : enrol(tx, orgId, name, shown);
  }

  function refuse(
    code: ErrorCode,
    { orgId, uid, name }: { orgId: string; uid: string | null; name: string },
    clientAddress: string | null,
  ): never {
    deps.noteRefusal({ action: 'agent.refused', agent: { orgId, uid, name }, protocol: 'v1', code, clientAddress });
    throw new AegisError(code);
  }

  function checkMayRegister(record: AgentRecord, remoteAddress: string | null): void {
    if (record.enrollment === 'revoked') refuse('AGENT_REVOKED', record, remoteAddress);
    if (record.refusesV1) refuse('AGENT_V1_REFUSED', record, remoteAddress);
  }

  async function enrol(tx: TransactionSql, orgId: string, name: string, shown: RegistrationKey): Promise<AgentRecord> {
    if (policy.enrollment === 'closed') refuse('REGISTRATION_CLOSED', { orgId, uid: null, name }, shown.remoteAddress);
    const fingerprint = keyFingerprint(shown.publicKey);
    const enrollment = policy.enrollment === 'open' ? 'approved' : 'pending';
    const [made] = await insertAgents(tx, [
      { ...{ orgId, name, enrollment, ...shown }, keyFingerprint: fingerprint, protocol: 'v1', tokenId: null },
    ]);
    if (made) return made;
    const raced = await lockByName(tx, orgId, name);
    if (!raced) throw new Error('an agent vanished while it registered');
    return judged(tx, raced, shown);
  }

  async function judged(tx: TransactionSql, record: AgentRecord, shown: RegistrationKey): Promise<AgentRecord> {
    const key = {
      ...{ agentUid: record.uid, ...shown, keyFingerprint: keyFingerprint(shown.publicKey) },
      protocol: 'v1' as const,
    };
    const decision = decideKey({
      protocol: 'v1',
      shownFingerprint: key.keyFingerprint,
      enrollment: record.enrollment,
      recordedFingerprint: record.keyFingerprint,
      recordedProtocol: record.keyProtocol,
      refusesV1: record.refusesV1,
      keyReset: record.keyReset,
      vouched: false,
      keyChange: policy.keyChange,
    });
    switch (decision) {
      case 'revoked':
        return refuse('AGENT_REVOKED', record, shown.remoteAddress);
      case 'refuse':
        return refuse('KEY_CONFLICT', record, shown.remoteAddress);
      case 'refuse-v1':
        return refuse('AGENT_V1_REFUSED', record, shown.remoteAddress);
      case 'known':
        return record;
      case 'pend':
        await pendKeys(tx, [key]);
        return record;
      case 'adopt':
      case 'trust': {
        const [adopted] = await adoptKeys(tx, [{ ...key, trusted: decision === 'trust' }]);
        return adopted ?? record;
      }
    }
  }

  return {
    async begin(request, link) {
      const rawKey = decodeBase64(request.publicKey);
      if (!rawKey || !signatures.isPublicKey(rawKey)) throw new AegisError('BAD_PUBKEY');
      if (link ? link.publicKey !== request.publicKey : false)
        throw new AegisError('BAD_PUBKEY', 'The key is not the one that this link authenticated with');
      if (policy.enrollment === 'closed' && !link) throw new AegisError('REGISTRATION_CLOSED');
      const nonce = randomBytes(32).toString('base64');
      const serverTime = new Date(wall.now()).toISOString().replace(/\.\d+Z$/, 'Z');
      const { machineIdHash, agentVersion, capabilities, platform, network } = request;
      const details: RegistrationDetails = { machineIdHash, agentVersion, capabilities, platform, network };
      const [row] = await sql<{ id: string }[]>`
        insert into registrations (org_id, host_id, public_key, nonce, server_time, details, expires_at)
        values (${request.orgId ?? policy.defaultOrg}, ${request.hostId}, ${request.publicKey}, ${nonce}, ${serverTime},
          ${JSON.stringify(details)}::text::jsonb, now() + ${registrationTtlMs} * interval '1 millisecond')
        returning id`;
      if (!row) throw new Error('the registration was not stored');
      return { registrationId: row.id, nonce, serverTime };
    },

    async complete(proof, link) {
      const signature = decodeBase64(proof.signature);
      const outcome = await sql.begin(async (tx) => {
        const [pending] = await tx<PendingRegistration[]>`
          select org_id, host_id, public_key, nonce, server_time, details from registrations
          where id = ${uuidOrNull(proof.registrationId)} and expires_at > now() for update`;
        if (!pending || (link && link.publicKey !== pending.public_key)) throw new AegisError('UNKNOWN_REGISTRATION');
        if (!signature) throw new AegisError('BAD_SIGNATURE');
        const signed = Buffer.concat([
          Buffer.from(pending.nonce, 'base64'),
          Buffer.from(pending.server_time + pending.host_id),
        ]);
        const publicKey = Buffer.from(pending.public_key, 'base64');
        if (proof.hostId !== pending.host_id || !signatures.verify(publicKey, signed, signature))
          throw new AegisError('SIGNATURE_VERIFY_FAILED');
        // Not before it is proved to be theirs: else anyone could have another's key taken for one of v1.
        await rememberV1Keys(tx, [keyFingerprint(pending.public_key)]);
        return tx.savepoint((nested) => register(nested, proof, pending, link)).catch(asOutcome);
      });
      if (outcome instanceof AegisError) throw outcome;
      return outcome;
    },
  };

  async function register(
    tx: TransactionSql,
    proof: RegistrationProof,
    pending: PendingRegistration,
    link: RegisteringLink | undefined,
  ): Promise<RegisteredAgent> {
    const record = await enrolled(tx, pending, link, proof.remoteAddress);
    if (record.publicKey === pending.public_key)
      await describeAgent(tx, record.uid, { hostId: pending.host_id, ...pending.details });
    const bootstrapToken = `boot_${randomBytes(32).toString('base64url')}`;
    await tx`
      insert into bootstrap_tokens (token_hash, agent_uid, agent_org_id, key_fingerprint)
      values (${tokenHash(bootstrapToken)}, ${record.uid}, ${record.orgId}, ${keyFingerprint(pending.public_key)})
      on conflict (agent_uid, key_fingerprint) do update set token_hash = excluded.token_hash, created_at = now()`;
    await tx`delete from registrations where id = ${proof.registrationId}`;
    return { agentUid: record.uid, bootstrapToken };
  }

  async function move(
    tx: TransactionSql,
    record: AgentRecord,
    orgId: string,
    remoteAddress: string | null,
  ): Promise<AgentRecord> {
    const { uid, name } = record;
    // In the chain of either organisation.
    await tx`
      with moved as (update agents set org_id = ${orgId}, updated_at = now() where uid = ${uid})
      ${auditing(
        tx,
        agentActor(uid, name, remoteAddress),
        'agent.moved',
        tx`select org_id, ${uid}::text, ${name}::text, json_build_object('from', ${record.orgId}::text, 'to', ${orgId}::text)
          from unnest(${[record.orgId, orgId]}::text[]) as org_id`,
      )}`;
    return { ...record, orgId };
  }

  async function remove(
    tx: TransactionSql,
    { uid, name, orgId }: AgentRecord,
    known: AgentRecord,
    remoteAddress: string | null,
  ): Promise<void> {
    await tx`${auditing(
      tx,
      agentActor(uid, name, remoteAddress),
      'agent.removed',
      tx`select ${orgId}::text, ${uid}::text, ${name}::text, json_build_object('madeWayFor', ${known.uid}::text)`,
    )}`;
    await tx`delete from communication_channels where agent_id = ${uid}`;
    await tx`delete from agent_connections where agent_id = ${uid}`;
    await tx`delete from agents where uid = ${uid}`;
  }
}

/** A refusal undoes what the registration did, and not what it has shown. */
function asOutcome(error: unknown): AegisError {
  if (error instanceof AegisError) return error;
  throw error;
}

/** Standard, padded base64 to bytes; null for anything else, aliases of the same bytes included. */
function decodeBase64(text: string): Uint8Array | null {
  const bytes = Buffer.from(text, 'base64');
  return bytes.toString('base64') === text ? bytes : null;
}
