import { randomBytes } from 'node:crypto';
import type { TransactionSql } from 'postgres';
import type { Clock } from '../clock.ts';
import type { Database } from '../db/database.ts';
import { AegisError } from '../errors.ts';
import type { Admission, Admissions, AuthenticatedAgent } from './admission.ts';
import {
  type AgentRecord,
  adoptKey,
  insertAgent,
  isVouchedFor,
  lockByKey,
  lockByUid,
  pendKey,
  readRecords,
  rememberNonce,
  standingOf,
  takeOwnership,
} from './admission-queries.ts';
import { decideKey } from './key-policy.ts';
import { keyFingerprint, tokenHash } from './keys.ts';
import type { Presence } from './presence.ts';

/** The rules by which agents are let in; see `docs/CONFIGURATION.md`. */
export interface AdmissionPolicy {
  readonly enrollment: 'open' | 'token' | 'approval' | 'closed';
  readonly keyChange: 'quarantine' | 'replace' | 'refuse';
  readonly defaultOrg: string;
  readonly sessionTimeoutMs: number;
}

export function createAdmissions(deps: {
  readonly database: Database;
  readonly clock: Clock;
  readonly policy: AdmissionPolicy;
  readonly instanceId: string;
  readonly presence: Presence;
}): Admissions {
  const { sql } = deps.database;
  const { policy, clock, presence } = deps;

  async function admit(agent: AuthenticatedAgent): Promise<Admission> {
    const fingerprint = keyFingerprint(agent.publicKey);
    const session = newSession();
    const admitted = await sql.begin(async (tx) => {
      const wanted = { name: agent.name, fingerprint, uid: agent.uid, defaultOrg: policy.defaultOrg };
      // One round trip for both: a storm of reconnects is a storm of these.
      const [isNew, known] = await Promise.all([
        rememberNonce(tx, agent.nonce, agent.nonceExpiresAt),
        lockByKey(tx, wanted),
      ]);
      if (!isNew) throw new AegisError('AUTH_NONCE_REUSED');
      const record = known ? await judgeKey(tx, known, agent, fingerprint) : await enrol(tx, agent, wanted);
      if (agent.headerRef !== agent.name && agent.headerRef.toLowerCase() !== record.uid)
        throw new AegisError('AUTH_IDENTITY_MISMATCH');
      const owned = await takeOwnership(tx, newConnection(record.uid, agent, session));
      return { standing: standingOf(record, agent.publicKey), owned };
    });
    if (admitted.owned && !admitted.owned.wasConnected) presence.came(admitted.standing.agentUid);
    return { standing: admitted.standing, epoch: admitted.owned?.epoch ?? null, ...session };
  }

  async function enrol(
    tx: TransactionSql,
    agent: AuthenticatedAgent,
    wanted: Parameters<typeof lockByKey>[1],
  ): Promise<AgentRecord> {
    if (policy.enrollment === 'closed') throw new AegisError('REGISTRATION_CLOSED');
    const { name, publicKey, protocol } = agent;
    const made = await insertAgent(tx, {
      ...{ name, publicKey, protocol },
      orgId: policy.defaultOrg,
      keyFingerprint: wanted.fingerprint,
      enrollment: policy.enrollment === 'open' ? 'approved' : 'pending',
    });
    if (made) return made;
    // Another handshake of the same name has made it since.
    const raced = await lockByKey(tx, wanted);
    if (!raced) throw new Error('an agent vanished while it was enrolled');
    return judgeKey(tx, raced, agent, wanted.fingerprint);
  }

  /** The agent's row after its key has been judged: what the link will be measured by. */
  async function judgeKey(
    tx: TransactionSql,
    record: AgentRecord,
    agent: AuthenticatedAgent,
    fingerprint: string,
  ): Promise<AgentRecord> {
    const { bootstrapToken, publicKey, protocol } = agent;
    const decision = decideKey({
      enrollment: record.enrollment,
      recordedFingerprint: record.keyFingerprint,
      shownFingerprint: fingerprint,
      keyReset: record.keyReset,
      vouched: bootstrapToken !== null && (await isVouchedFor(tx, record.uid, tokenHash(bootstrapToken))),
      keyChange: policy.keyChange,
    });
    switch (decision) {
      case 'known':
        return record;
      case 'revoked':
        throw new AegisError('AGENT_REVOKED');
      case 'refuse':
        throw new AegisError('KEY_CONFLICT');
      case 'pend':
        await pendKey(tx, record.uid, publicKey, fingerprint);
        return record;
      case 'adopt': {
        await adoptKey(tx, { agentUid: record.uid, publicKey, keyFingerprint: fingerprint, protocol });
        const adopted = await lockByUid(tx, record.uid);
        if (!adopted) throw new Error('an agent vanished while its key was adopted');
        return adopted;
      }
    }
  }

  function newSession() {
    return {
      sessionToken: `tok_${randomBytes(32).toString('base64url')}`,
      sessionExpiresAt: new Date(clock.now() + policy.sessionTimeoutMs),
    };
  }

  function newConnection(agentUid: string, agent: AuthenticatedAgent, session: ReturnType<typeof newSession>) {
    return {
      agentUid,
      publicKey: agent.publicKey,
      sessionTokenHash: tokenHash(session.sessionToken),
      sessionExpiresAt: session.sessionExpiresAt,
      instanceId: deps.instanceId,
      protocol: agent.protocol,
      dialect: agent.dialect,
      remoteAddress: agent.remoteAddress,
    };
  }

  return {
    admit,
    async promote(agentUid, agent) {
      const owned = await takeOwnership(sql, newConnection(agentUid, agent, newSession()));
      if (owned && !owned.wasConnected) presence.came(agentUid);
      return owned?.epoch ?? null;
    },
    async standings(links) {
      const records = await readRecords(sql, [...new Set(links.map((link) => link.agentUid))]);
      const byUid = new Map(records.map((record) => [record.uid, record]));
      return links.map((link) => {
        const record = byUid.get(link.agentUid);
        return record ? standingOf(record, link.publicKey) : null;
      });
    },
    seen: presence.seen,
    left: presence.left,
    get holdsLease() {
      return presence.holdsLease;
    },
    onOwnershipLost: presence.onOwnershipLost,
  };
}
