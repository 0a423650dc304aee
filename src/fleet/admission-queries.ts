import type { Row, Sql, TransactionSql } from 'postgres';
import { commandKinds, eventKinds, parseAgentChannel } from '../agent-gateway/wire/channels.ts';
import type { LinkStanding } from './admission.ts';
import type { AgentDialect, AgentProtocol, Enrollment } from './agent.ts';
import { uuidOrNull } from './queries.ts';

/** An agent's row as enrolment and authentication need it. */
export interface AgentRecord {
  readonly uid: string;
  readonly orgId: string;
  readonly name: string;
  readonly enrollment: Enrollment;
  readonly publicKey: string;
  readonly keyFingerprint: string;
  readonly keyReset: boolean;
  readonly registeredAt: Date | null;
  readonly createdAt: Date;
  readonly closedChannels: readonly string[];
}

/** A link about to own its agent. */
export interface NewConnection {
  readonly agentUid: string;
  readonly publicKey: string;
  readonly sessionTokenHash: string;
  readonly sessionExpiresAt: Date;
  readonly instanceId: string;
  readonly protocol: AgentProtocol;
  readonly dialect: AgentDialect;
  readonly remoteAddress: string | null;
}

export async function rememberNonce(sql: Sql | TransactionSql, nonce: string, expiresAt: Date): Promise<boolean> {
  const result = await sql`
    insert into auth_nonces (nonce, expires_at) values (${nonce}, ${expiresAt.toISOString()}) on conflict do nothing`;
  return result.count === 1;
}

/**
 * The agent that a name and a key stand for, locked: by key, then by the uid it claims, then in the default organisation.
 * v1 names no organisation (requirements.md, "Organisations").
 */
export async function lockByKey(
  sql: TransactionSql,
  wanted: { name: string; fingerprint: string; uid: string | null; defaultOrg: string },
): Promise<AgentRecord | null> {
  const uid = wanted.uid === null ? null : uuidOrNull(wanted.uid);
  const [row] = await sql`
    ${selectRecord(sql)}
    where name = ${wanted.name} and (key_fingerprint = ${wanted.fingerprint}
      or pending_key_fingerprint = ${wanted.fingerprint} or uid = ${uid} or org_id = ${wanted.defaultOrg})
    order by key_fingerprint = ${wanted.fingerprint} desc, pending_key_fingerprint = ${wanted.fingerprint} desc nulls last,
      uid = ${uid} desc nulls last, org_id = ${wanted.defaultOrg} desc
    limit 1 for update`;
  return row ? recordOf(row) : null;
}

export async function lockByName(sql: TransactionSql, orgId: string, name: string): Promise<AgentRecord | null> {
  const [row] = await sql`${selectRecord(sql)} where org_id = ${orgId} and name = ${name} for update`;
  return row ? recordOf(row) : null;
}

export async function lockByUid(sql: TransactionSql, uid: string): Promise<AgentRecord | null> {
  const [row] = await sql`${selectRecord(sql)} where uid = ${uid} for update`;
  return row ? recordOf(row) : null;
}

/**
 * Makes an agent with its sixteen channels, in one statement; null where another handshake has just made it. An approved
 * agent's key counts from now on as one that was approved.
 */
export async function insertAgent(
  sql: TransactionSql,
  agent: {
    orgId: string;
    name: string;
    publicKey: string;
    keyFingerprint: string;
    enrollment: Enrollment;
    protocol: AgentProtocol;
  },
): Promise<AgentRecord | null> {
  const [row] = await sql`
    with made as (
      insert into agents (org_id, name, public_key, key_fingerprint, enrollment)
      values (${agent.orgId}, ${agent.name}, ${agent.publicKey}, ${agent.keyFingerprint}, ${agent.enrollment})
      on conflict (org_id, name) do nothing returning *
    ), listed as (
      insert into communication_channels (agent_id, channel_name, channel_type)
      select uid, 'agent.' || uid || '.' || kind, 'agent_to_backend' from made, unnest(${[...eventKinds]}::text[]) as kind
      union all
      select uid, 'backend.' || uid || '.' || kind, 'backend_to_agent' from made, unnest(${[...commandKinds]}::text[]) as kind
    ), remembered as (
      insert into agent_keys (agent_uid, key_fingerprint, protocol)
      select uid, key_fingerprint, ${agent.protocol} from made where enrollment = 'approved'
    )
    select uid, org_id, name, enrollment, public_key, key_fingerprint, key_reset, registered_at, created_at,
      '{}'::text[] as closed_channels from made`;
  return row ? recordOf(row) : null;
}

/** Puts a key on record. In an approved agent it counts from now on as one that was approved. */
export async function adoptKey(
  sql: Sql | TransactionSql,
  key: { agentUid: string; publicKey: string; keyFingerprint: string; protocol: AgentProtocol },
): Promise<void> {
  await sql`
    with adopted as (
      update agents set public_key = ${key.publicKey}, key_fingerprint = ${key.keyFingerprint}, pending_public_key = null,
        pending_key_fingerprint = null, key_reset = false, updated_at = now(),
        enrollment = case when key_reset and enrollment = 'revoked' then 'approved' else enrollment end
      where uid = ${key.agentUid} returning uid, enrollment
    )
    insert into agent_keys (agent_uid, key_fingerprint, protocol)
    select uid, ${key.keyFingerprint}, ${key.protocol} from adopted where enrollment = 'approved'
    on conflict do nothing`;
}

export async function pendKey(
  sql: TransactionSql,
  agentUid: string,
  publicKey: string,
  keyFingerprint: string,
): Promise<void> {
  await sql`
    update agents set pending_public_key = ${publicKey}, pending_key_fingerprint = ${keyFingerprint}, updated_at = now()
    where uid = ${agentUid}`;
}

/** Whether the token was issued to a key of this agent that was approved (requirements.md, "Trust"). */
export async function isVouchedFor(sql: TransactionSql, agentUid: string, tokenHash: string): Promise<boolean> {
  const [row] = await sql`
    select from bootstrap_tokens token join agent_keys key using (agent_uid, key_fingerprint)
    where token.token_hash = ${tokenHash} and token.agent_uid = ${agentUid}`;
  return row !== undefined;
}

/**
 * Makes a link the owner of its agent, if its key is the one on record: a higher epoch, and the connection's row. `before`
 * locks that row, so that it tells the truth about an earlier link that is leaving at this moment.
 * Milliseconds are the least, so that a restored database does not fall behind (protocol-v2.md, "Reliability").
 */
export async function takeOwnership(
  sql: Sql | TransactionSql,
  connection: NewConnection,
): Promise<{ epoch: number; wasConnected: boolean } | null> {
  const [row] = await sql<{ epoch: number; was_connected: boolean }[]>`
    with owned as (
      update agents set epoch = greatest(epoch + 1, (extract(epoch from clock_timestamp()) * 1000)::bigint),
        dialect = ${connection.dialect}
      where uid = ${connection.agentUid} and public_key = ${connection.publicKey} returning uid, epoch
    ), before as (
      select is_active, instance_id from agent_connections where agent_id = ${connection.agentUid} for update
    ), written as (
      insert into agent_connections (agent_id, public_key, session_token, epoch, instance_id, protocol, remote_address,
        session_expires_at)
      select uid::text, ${connection.publicKey}, ${connection.sessionTokenHash}, epoch, ${connection.instanceId},
        ${connection.protocol}, ${connection.remoteAddress}, ${connection.sessionExpiresAt.toISOString()}::timestamptz
      from owned left join before on true
      on conflict (agent_id) do update set public_key = excluded.public_key, session_token = excluded.session_token,
        epoch = excluded.epoch, instance_id = excluded.instance_id, protocol = excluded.protocol,
        remote_address = excluded.remote_address, session_expires_at = excluded.session_expires_at,
        connected_at = now(), last_seen = now(), is_active = true, updated_at = now()
    )
    select epoch, exists (
      select from before join instances on instances.id = before.instance_id
      where before.is_active and instances.lease_until > now()) as was_connected
    from owned`;
  return row ? { epoch: row.epoch, wasConnected: row.was_connected } : null;
}

/** The agents' rows as their links need them. */
export async function readRecords(sql: Sql, uids: readonly string[]): Promise<AgentRecord[]> {
  const rows = await sql`${selectRecord(sql)} where uid = any(${[...uids]}::uuid[])`;
  return rows.map(recordOf);
}

/** What may pass over a link that uses `publicKey`. */
export function standingOf(record: AgentRecord, publicKey: string): LinkStanding {
  const holdsKey = record.publicKey === publicKey;
  return {
    agentUid: record.uid,
    name: record.name,
    orgId: record.orgId,
    enrollment: record.enrollment,
    holdsKey,
    trusted: holdsKey && record.enrollment === 'approved',
    closedEventKinds: new Set(record.closedChannels.flatMap((channel) => parseAgentChannel(channel)?.kind ?? [])),
  };
}

function selectRecord(sql: Sql | TransactionSql) {
  return sql`
    select uid, org_id, name, enrollment, public_key, key_fingerprint, key_reset, registered_at, created_at, array(
      select channel_name from communication_channels where agent_id = agents.uid::text and not is_active) as closed_channels
    from agents`;
}

function recordOf(row: Row): AgentRecord {
  return {
    uid: row.uid,
    orgId: row.org_id,
    name: row.name,
    enrollment: row.enrollment,
    publicKey: row.public_key,
    keyFingerprint: row.key_fingerprint,
    keyReset: row.key_reset,
    registeredAt: row.registered_at === null ? null : new Date(row.registered_at),
    createdAt: new Date(row.created_at),
    closedChannels: row.closed_channels,
  };
}
