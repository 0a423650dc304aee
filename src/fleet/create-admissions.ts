import { randomBytes } from 'node:crypto';
import { auditingEach } from '../audit/auditing.ts';
import type { NoteRefusal } from '../audit/refusals.ts';
import type { Clock } from '../clock.ts';
import type { Database } from '../db/database.ts';
import { AegisError } from '../errors.ts';
import type {
  Admission,
  Admissions,
  AuthenticatedAgent,
  AuthenticatedV1Agent,
  AuthenticatedV2Agent,
} from './admission.ts';
import type { AdmissionPolicy } from './admission-policy.ts';
import { type NewConnection, readRecords, standingOf, takeOwnership, v1KeysAmong } from './admission-queries.ts';
import { type AdmissionAsk, AdmissionRefused, admitTogether } from './admit-together.ts';
import { createGroups } from './groups.ts';
import { keyFingerprint, tokenHash } from './keys.ts';
import type { Presence } from './presence.ts';

const maxGroupAsks = 256;
const leastGroupAsksBeside = 32;

export function createAdmissions(deps: {
  readonly database: Database;
  /** What time it is. */
  readonly wall: Pick<Clock, 'now'>;
  readonly policy: AdmissionPolicy;
  readonly instanceId: string;
  readonly presence: Presence;
  readonly noteRefusal: NoteRefusal;
}): Admissions {
  const { sql } = deps.database;
  const { policy, wall, presence } = deps;
  const letIn = createGroups({
    // The embedded engine has one connection.
    lanes: deps.database.embedded ? 1 : 2,
    leastBeside: leastGroupAsksBeside,
    maxAsks: maxGroupAsks,
    keysOf: ({ agent }: AdmissionAsk) => [
      `name ${agent.name}`,
      agent.protocol === 'v1' ? `nonce ${agent.nonce}` : `token ${agent.enroll?.token ?? agent.publicKey}`,
    ],
    work: (asks) => admitTogether(sql, asks, policy),
  });

  async function admit(agent: AuthenticatedV1Agent | AuthenticatedV2Agent): Promise<Admission> {
    const session = newSession();
    const { standing, owned, agentEpoch } = await letIn({
      agent,
      fingerprint: keyFingerprint(agent.publicKey),
      connection: newConnection(agent, session),
    }).catch((error: unknown) => {
      if (error instanceof AdmissionRefused) note(agent, error);
      throw error;
    });
    if (owned && !owned.wasConnected) presence.came(standing.agentUid, owned.epoch);
    return { standing, epoch: owned?.epoch ?? null, agentEpoch, ...session };
  }

  function note({ name, protocol, remoteAddress }: AuthenticatedAgent, { record, code }: AdmissionRefused): void {
    const { orgId, uid } = record ?? { orgId: policy.defaultOrg, uid: null };
    const agent = { orgId, uid, name };
    deps.noteRefusal({ action: 'agent.refused', agent, protocol, code, clientAddress: remoteAddress });
  }

  function newSession() {
    return {
      sessionToken: `tok_${randomBytes(32).toString('base64url')}`,
      sessionExpiresAt: new Date(wall.now() + policy.sessionTimeoutMs),
    };
  }

  function newConnection(agent: AuthenticatedAgent, session: ReturnType<typeof newSession>): NewConnection {
    const { publicKey, protocol, dialect, remoteAddress } = agent;
    return {
      ...{ publicKey, protocol, dialect, remoteAddress },
      instanceId: deps.instanceId,
      sessionTokenHash: tokenHash(session.sessionToken),
      sessionExpiresAt: session.sessionExpiresAt,
    };
  }

  return {
    admit,
    admitV2: admit,
    async promote(agentUid, agent) {
      const connection = { ...newConnection(agent, newSession()), agentUid };
      const owned = (await takeOwnership(sql, [connection])).get(agentUid);
      if (owned && !owned.wasConnected) presence.came(agentUid, owned.epoch);
      return owned?.epoch ?? null;
    },
    async rotateKey(link, newPublicKey) {
      const fingerprint = keyFingerprint(newPublicKey);
      if ((await v1KeysAmong(sql, [fingerprint])).has(fingerprint)) throw new AegisError('KEY_USED_IN_V1');
      const named = await sql`
        with named as (
          update agents set successor_key_fingerprint = nullif(${fingerprint}, key_fingerprint), updated_at = now()
          where uid = ${link.agentUid} and epoch = ${link.epoch} and public_key = ${link.publicKey}
            and enrollment = 'approved' and key_protocol = 'v2'
          returning *
        )
        ${auditingEach(
          sql,
          'agent.key-named',
          sql`select named.org_id, uid::text, name, json_build_object('protocol', 'v2', 'keyFingerprint', ${fingerprint}::text),
            'agent', uid::text, name, (select remote_address from agent_connections where agent_id = uid::text), null
          from named`,
        )}`;
      if (named.count === 1) return;
      const [owner] = await sql`select from agents where uid = ${link.agentUid} and epoch = ${link.epoch}`;
      throw new AegisError(owner ? 'KEY_CONFLICT' : 'LINK_SUPERSEDED');
    },
    async standings(links) {
      const records = await readRecords(sql, [...new Set(links.map((link) => link.agentUid))]);
      const byUid = new Map(records.map((record) => [record.uid, record]));
      return links.map((link) => {
        const record = byUid.get(link.agentUid);
        return record ? standingOf(record, link.publicKey) : null;
      });
    },
    async closedLately() {
      return await sql<{ agentUid: string; throughEpoch: number | null }[]>`
        select uid as "agentUid", null::bigint as "throughEpoch" from agents
          where revoked_at > now() - interval '30 seconds' and enrollment = 'revoked'
        union all select uid, disconnect_epoch from agents where disconnect_asked_at > now() - interval '30 seconds'`;
    },
    seen: presence.seen,
    left: presence.left,
    get holdsLease() {
      return presence.holdsLease;
    },
    onOwnershipLost: presence.onOwnershipLost,
  };
}
