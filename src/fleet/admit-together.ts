import type { Sql, TransactionSql } from 'postgres';
import { AegisError, type ErrorCode } from '../errors.ts';
import type { AuthenticatedV1Agent, AuthenticatedV2Agent, LinkStanding } from './admission.ts';
import type { AdmissionPolicy } from './admission-policy.ts';
import {
  type AgentLookup,
  type AgentRecord,
  adoptKeys,
  type FoundAgent,
  insertAgents,
  lockAgents,
  type NewConnection,
  type Ownership,
  pendKeys,
  type ReturningAgent,
  readmit,
  rememberNonces,
  rememberV1Keys,
  type ShownKey,
  type ShownNonce,
  standingOf,
  takeOwnership,
  v1KeysAmong,
} from './admission-queries.ts';
import type { Enrollment } from './agent.ts';
import { describeAgent } from './agent-description.ts';
import { lockUsableTokens, type UsableToken, useTokens } from './create-enrollment-tokens.ts';
import { decideKey } from './key-policy.ts';
import { tokenHash } from './keys.ts';

/** A link that asks to be let in. */
export interface AdmissionAsk {
  readonly agent: AuthenticatedV1Agent | AuthenticatedV2Agent;
  readonly fingerprint: string;
  readonly connection: NewConnection;
}

/** A link that was let in, and what it owns; null beside another key. */
export interface LetIn {
  readonly standing: LinkStanding;
  readonly owned: Ownership | null;
  readonly agentEpoch: number;
}

/** Why an agent that had proved its key was not let in. */
export class AdmissionRefused extends AegisError {
  /** The agent of that name, which may be another's; null where there is none. */
  readonly record: AgentRecord | null;

  constructor(code: ErrorCode, record: AgentRecord | null) {
    super(code);
    this.record = record;
  }
}

/** What was decided about one ask. */
type Verdict =
  | {
      readonly does: 'enrol';
      readonly orgId: string;
      readonly enrollment: Enrollment;
      readonly token: UsableToken | null;
    }
  | { readonly does: 'keep' | 'pend'; readonly record: AgentRecord; readonly token: null }
  | { readonly does: 'adopt' | 'trust'; readonly record: AgentRecord; readonly token: UsableToken | null };

interface Judged {
  readonly ask: AdmissionAsk;
  readonly verdict: Verdict;
}

/** What is known of the asks before their agents are looked at. */
interface Shown {
  readonly nonces: ReadonlySet<string>;
  readonly v1Keys: ReadonlySet<string>;
  readonly tokens: ReadonlyMap<string, UsableToken>;
}

/** Handshakes of one new name may race on several gateways; who lost finds the agent at the next look. */
const maxLooks = 3;

/**
 * Lets agents in, however many they are: those that are trusted and come back by one statement, which is what a storm consists
 * of, the others in one transaction of a few. No two of the asks may have a name, a nonce or a token in common. A refusal is that
 * ask's outcome and changes nothing but what was shown: nonces and v1 keys.
 */
export async function admitTogether(
  sql: Sql,
  asks: readonly AdmissionAsk[],
  policy: AdmissionPolicy,
): Promise<readonly (LetIn | Error)[]> {
  const back = await readmit(
    sql,
    asks.flatMap((ask) => returningAgent(ask, policy) ?? []),
  );
  const others = asks.filter(({ agent }) => !back.has(agent.name));
  const decided = others.length === 0 ? null : await decideTogether(sql, others, policy);
  return asks.map((ask) => {
    const owned = back.get(ask.agent.name);
    if (owned) return { standing: standingOf(owned.record, ask.agent.publicKey), owned, agentEpoch: owned.epoch };
    return decided?.get(ask) ?? new Error('an agent vanished while it was let in');
  });
}

/** Null where there is more to decide than whether the agent is trusted with its key. */
function returningAgent(ask: AdmissionAsk, policy: AdmissionPolicy): ReturningAgent | null {
  const { agent, fingerprint: keyFingerprint, connection } = ask;
  const lookup = lookupOf(ask, null, policy);
  if (agent.protocol === 'v1')
    return { lookup, keyFingerprint, connection, v1: { headerRef: agent.headerRef, nonce: nonceOf(agent) } };
  return agent.enroll ? null : { lookup, keyFingerprint, connection, v1: null };
}

function decideTogether(
  sql: Sql,
  asks: readonly AdmissionAsk[],
  policy: AdmissionPolicy,
): Promise<ReadonlyMap<AdmissionAsk, LetIn | Error>> {
  return sql.begin(async (tx) => {
    const tokens = await lockUsableTokens(
      tx,
      asks.flatMap((ask) => tokenHashOf(ask) ?? []),
    );
    const lookups = asks.map((ask) => lookupOf(ask, usableToken(ask, tokens, policy), policy));
    // One round trip: a storm of reconnects is a storm of these.
    const [nonces, , v1Keys, found] = await Promise.all([
      rememberNonces(
        tx,
        asks.flatMap(({ agent }) => (agent.protocol === 'v1' ? [nonceOf(agent)] : [])),
      ),
      rememberV1Keys(tx, fingerprintsOf(asks, 'v1')),
      v1KeysAmong(tx, fingerprintsOf(asks, 'v2')),
      lockAgents(tx, lookups),
    ]);
    return settle(tx, asks, lookups, found, { nonces, v1Keys, tokens }, policy);
  });
}

async function settle(
  tx: TransactionSql,
  asks: readonly AdmissionAsk[],
  lookups: readonly AgentLookup[],
  firstFound: readonly (FoundAgent | undefined)[],
  shown: Shown,
  policy: AdmissionPolicy,
): Promise<ReadonlyMap<AdmissionAsk, LetIn | Error>> {
  const outcomes = new Map<AdmissionAsk, LetIn | Error>();
  const records = new Map<AdmissionAsk, AgentRecord>();
  let open = asks.map((ask, index) => ({ ask, lookup: lookups[index], found: firstFound[index] }));
  for (let look = 1; look <= maxLooks && open.length > 0; look++) {
    const judged: Judged[] = [];
    for (const { ask, found } of open) {
      const verdict = judge(ask, found, shown, policy);
      if (typeof verdict === 'string') outcomes.set(ask, new AdmissionRefused(verdict, found?.record ?? null));
      else judged.push({ ask, verdict });
    }
    for (const [ask, record] of await carryOut(tx, judged)) records.set(ask, record);
    const raced = open.flatMap(({ ask, lookup }) =>
      lookup && !outcomes.has(ask) && !records.has(ask) ? [{ ask, lookup }] : [],
    );
    const found =
      raced.length > 0
        ? await lockAgents(
            tx,
            raced.map(({ lookup }) => lookup),
          )
        : [];
    open = raced.map((each, index) => ({ ...each, found: found[index] }));
  }
  const owned = await takeOwnership(
    tx,
    [...records].map(([ask, record]) => ({ ...ask.connection, agentUid: record.uid })),
  );
  for (const [ask, record] of records) {
    const standing = standingOf(record, ask.agent.publicKey);
    if (standing.holdsKey && ask.agent.protocol === 'v2' && ask.agent.enroll)
      await describeAgent(tx, record.uid, ask.agent.enroll);
    const ownership = owned.get(record.uid) ?? null;
    outcomes.set(ask, { standing, owned: ownership, agentEpoch: ownership?.epoch ?? record.epoch });
  }
  return outcomes;
}

/** Writes what was decided; the agents' rows as they are then. One that another transaction made meanwhile is left out. */
async function carryOut(
  tx: TransactionSql,
  judged: readonly Judged[],
): Promise<ReadonlyMap<AdmissionAsk, AgentRecord>> {
  const records = new Map<AdmissionAsk, AgentRecord>();
  const newAgents = judged.flatMap(({ ask, verdict }) =>
    verdict.does === 'enrol' ? [{ ask, ...newAgent(ask, verdict) }] : [],
  );
  const newKeys = judged.flatMap(({ ask, verdict }) =>
    verdict.does === 'adopt' || verdict.does === 'trust'
      ? [{ ask, ...keyOf(ask, verdict.record.uid), trusted: verdict.does === 'trust' }]
      : [],
  );
  const waitingKeys = judged.flatMap(({ ask, verdict }) =>
    verdict.does === 'pend' ? [keyOf(ask, verdict.record.uid)] : [],
  );
  const made = await insertAgents(
    tx,
    newAgents.map(({ ask: _, ...agent }) => agent),
  );
  const adopted = await adoptKeys(
    tx,
    newKeys.map(({ ask: _, ...key }) => key),
  );
  await pendKeys(tx, waitingKeys);

  // No two asks have a name in common.
  const byName = new Map([...made, ...adopted].map((record) => [record.name, record]));
  for (const { ask, verdict } of judged) {
    const record = verdict.does === 'keep' || verdict.does === 'pend' ? verdict.record : byName.get(ask.agent.name);
    if (record) records.set(ask, record);
  }
  const uses = judged.flatMap(({ ask, verdict }) => {
    const agentUid = records.get(ask)?.uid;
    return verdict.token && agentUid ? [{ id: verdict.token.id, agentUid }] : [];
  });
  await useTokens(tx, uses);
  return records;
}

function judge(
  ask: AdmissionAsk,
  found: FoundAgent | undefined,
  shown: Shown,
  policy: AdmissionPolicy,
): Verdict | ErrorCode {
  const { agent } = ask;
  if (agent.protocol === 'v1') {
    if (!shown.nonces.has(agent.nonce)) return 'AUTH_NONCE_REUSED';
    if (agent.headerRef !== agent.name && agent.headerRef.toLowerCase() !== found?.record.uid)
      return 'AUTH_IDENTITY_MISMATCH';
  } else if (shown.v1Keys.has(ask.fingerprint)) return 'KEY_USED_IN_V1';
  const token = usableToken(ask, shown.tokens, policy);
  return found ? judgeKnown(ask, found, token, policy) : judgeNew(ask, token, policy);
}

function judgeNew(ask: AdmissionAsk, token: UsableToken | null, policy: AdmissionPolicy): Verdict | ErrorCode {
  if (policy.enrollment === 'closed') return 'REGISTRATION_CLOSED';
  const enrollment = policy.enrollment === 'open' || token ? 'approved' : 'pending';
  return { does: 'enrol', orgId: homeOf(ask, token, policy), enrollment, token };
}

function judgeKnown(
  ask: AdmissionAsk,
  { record, vouched }: FoundAgent,
  token: UsableToken | null,
  policy: AdmissionPolicy,
): Verdict | ErrorCode {
  // A token for any new name takes over no known one: it lets in the agent alone that has waited for it.
  const speaksForKey = token !== null && (token.agentName !== null || record.keyFingerprint === ask.fingerprint);
  const isSuccessor = ask.agent.protocol === 'v2' && record.successorKeyFingerprint === ask.fingerprint;
  const decision = decideKey({
    protocol: ask.agent.protocol,
    shownFingerprint: ask.fingerprint,
    enrollment: record.enrollment,
    recordedFingerprint: record.keyFingerprint,
    recordedProtocol: record.keyProtocol,
    refusesV1: record.refusesV1,
    keyReset: record.keyReset,
    vouched: vouched || speaksForKey || isSuccessor,
    keyChange: policy.keyChange,
  });
  switch (decision) {
    case 'revoked':
      return 'AGENT_REVOKED';
    case 'refuse':
      return 'KEY_CONFLICT';
    case 'refuse-v1':
      return 'AGENT_V1_REFUSED';
    case 'known':
      return { does: 'keep', record, token: null };
    case 'pend':
      return { does: 'pend', record, token: null };
    case 'adopt':
    case 'trust':
      return { does: decision, record, token: speaksForKey && !isSuccessor ? token : null };
  }
}

function lookupOf(ask: AdmissionAsk, token: UsableToken | null, policy: AdmissionPolicy): AgentLookup {
  const { agent, fingerprint } = ask;
  if (agent.protocol === 'v2') {
    const orgId = agent.orgId || policy.defaultOrg;
    // Where it may not enrol in the organisation that it names, it is one of the default organisation.
    const fallbackOrgId = homeOf(ask, token, policy) === orgId ? null : policy.defaultOrg;
    return { name: agent.name, orgId, fallbackOrgId, fingerprint: null, uid: null, bootstrapTokenHash: null };
  }
  return {
    ...{ name: agent.name, fingerprint, uid: agent.uid, orgId: policy.defaultOrg, fallbackOrgId: null },
    bootstrapTokenHash: agent.bootstrapToken === null ? null : tokenHash(agent.bootstrapToken),
  };
}

/** Where a new agent belongs (requirements.md, "Organisations"). */
function homeOf({ agent }: AdmissionAsk, token: UsableToken | null, policy: AdmissionPolicy): string {
  if (agent.protocol === 'v1' || !agent.orgId) return policy.defaultOrg;
  return policy.enrollment === 'open' || token ? agent.orgId : policy.defaultOrg;
}

/** The token that the agent shows, where it is good for the name and the organisation that it names. */
function usableToken(ask: AdmissionAsk, tokens: Shown['tokens'], policy: AdmissionPolicy): UsableToken | null {
  const hash = tokenHashOf(ask);
  const token = hash === null ? undefined : tokens.get(hash);
  if (!token || ask.agent.protocol === 'v1') return null;
  const isForName = token.agentName === null || token.agentName === ask.agent.name;
  return isForName && token.orgId === (ask.agent.orgId || policy.defaultOrg) ? token : null;
}

function tokenHashOf({ agent }: AdmissionAsk): string | null {
  return agent.protocol === 'v2' && agent.enroll?.token ? tokenHash(agent.enroll.token) : null;
}

function nonceOf({ nonce, nonceLifeMs, attemptId }: AuthenticatedV1Agent): ShownNonce {
  return { nonce, nonceLifeMs, attemptId };
}

function fingerprintsOf(asks: readonly AdmissionAsk[], protocol: 'v1' | 'v2'): string[] {
  return asks.flatMap(({ agent, fingerprint }) => (agent.protocol === protocol ? [fingerprint] : []));
}

function newAgent({ agent, fingerprint }: AdmissionAsk, { orgId, enrollment, token }: Verdict & { does: 'enrol' }) {
  const { name, publicKey, protocol, remoteAddress } = agent;
  const tokenId = token?.id ?? null;
  return { orgId, name, publicKey, keyFingerprint: fingerprint, enrollment, protocol, remoteAddress, tokenId };
}

function keyOf({ agent, fingerprint }: AdmissionAsk, agentUid: string): ShownKey {
  const { publicKey, protocol, remoteAddress } = agent;
  return { agentUid, publicKey, keyFingerprint: fingerprint, protocol, remoteAddress };
}
