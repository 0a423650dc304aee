import type { Fragment, Row, Sql, TransactionSql } from 'postgres';
import { commandKinds, eventKinds, parseAgentChannel } from '../agent-gateway/wire/channels.ts';
import { allEntries, auditingEach } from '../audit/auditing.ts';
import type { LinkStanding } from './admission.ts';
import type { AgentDialect, AgentProtocol, Enrollment } from './agent.ts';
import { uuidOrNull } from './queries.ts';

/**
 * Everything here takes many at once. Rows are locked in one order throughout (tokens, nonces and keys, agents, connections,
 * each sorted), so that groups of admissions on several gateways cannot block each other for ever.
 */

/** An agent's row as enrolment and authentication need it. */
export interface AgentRecord {
  readonly uid: string;
  readonly orgId: string;
  readonly name: string;
  readonly enrollment: Enrollment;
  readonly publicKey: string;
  readonly keyFingerprint: string;
  readonly keyProtocol: AgentProtocol;
  readonly successorKeyFingerprint: string | null;
  readonly keyReset: boolean;
  /** Whether a v2 key of it is trusted, and v1 refused. */
  readonly refusesV1: boolean;
  readonly epoch: number;
  readonly registeredAt: Date | null;
  readonly closedChannels: readonly string[];
}

/** Which agent a handshake means. */
export interface AgentLookup {
  readonly name: string;
  readonly orgId: string;
  /** Where to look when `orgId` has no such name; null: nowhere. */
  readonly fallbackOrgId: string | null;
  /** v1 alone, which names no organisation (requirements.md, "Organisations"): its key, then the uid it claims, come first. */
  readonly fingerprint: string | null;
  readonly uid: string | null;
  readonly bootstrapTokenHash: string | null;
}

export interface FoundAgent {
  readonly record: AgentRecord;
  /** Whether the bootstrap token was issued to a key of this agent that was approved (requirements.md, "Trust"). */
  readonly vouched: boolean;
}

export interface ShownKey {
  readonly agentUid: string;
  readonly publicKey: string;
  readonly keyFingerprint: string;
  readonly protocol: AgentProtocol;
  readonly remoteAddress: string | null;
}

/** What a v1 agent has signed; a nonce counts once. */
export interface ShownNonce {
  readonly nonce: string;
  readonly nonceLifeMs: number;
  readonly attemptId: string;
}

/** A link about to own its agent. */
export interface NewConnection {
  readonly publicKey: string;
  readonly sessionTokenHash: string;
  readonly sessionExpiresAt: Date;
  readonly instanceId: string;
  readonly protocol: AgentProtocol;
  readonly dialect: AgentDialect | null;
  readonly remoteAddress: string | null;
}

export interface Ownership {
  readonly epoch: number;
  readonly wasConnected: boolean;
}

/** The nonces that are new, or were shown by the same attempt before. */
export async function rememberNonces(tx: TransactionSql, nonces: readonly ShownNonce[]): Promise<ReadonlySet<string>> {
  if (nonces.length === 0) return new Set();
  const rows = await tx<{ nonce: string }[]>`
    ${rememberingNonces(
      tx,
      tx`select nonce, "nonceLifeMs", "attemptId"
        from json_to_recordset(${JSON.stringify(nonces)}::text::json) as shown (${nonceColumns(tx)})`,
    )}`;
  return new Set(rows.map((row) => row.nonce));
}

function nonceColumns(sql: Sql | TransactionSql) {
  return sql`nonce text, "nonceLifeMs" float8, "attemptId" uuid`;
}

function rememberingNonces(sql: Sql | TransactionSql, shown: Fragment) {
  return sql`
    insert into auth_nonces (nonce, expires_at, attempt_id)
    select nonce, now() + "nonceLifeMs" * interval '1 millisecond', "attemptId" from (${shown}) as shown order by nonce
    on conflict (nonce) do update set attempt_id = excluded.attempt_id where auth_nonces.attempt_id = excluded.attempt_id
    returning nonce`;
}

/** Notes keys with which somebody has signed on v1. */
export async function rememberV1Keys(tx: TransactionSql, fingerprints: readonly string[]): Promise<void> {
  if (fingerprints.length === 0) return;
  await tx`
    insert into v1_keys (key_fingerprint) select distinct fingerprint from unnest(${[...fingerprints]}::text[]) as fingerprint
    order by fingerprint on conflict do nothing`;
}

/** Those of the keys that were ever shown on v1. */
export async function v1KeysAmong(
  sql: Sql | TransactionSql,
  fingerprints: readonly string[],
): Promise<ReadonlySet<string>> {
  if (fingerprints.length === 0) return new Set();
  const rows = await sql<{ key_fingerprint: string }[]>`
    select key_fingerprint from v1_keys where key_fingerprint = any(${[...fingerprints]}::text[])`;
  return new Set(rows.map((row) => row.key_fingerprint));
}

/**
 * The agent of each lookup, locked; undefined where there is none. No two lookups may have a name in common. Each name is
 * looked up by itself, and agents by `any`: a join with a set whose size is guessed would read the whole fleet for one agent.
 */
export async function lockAgents(
  tx: TransactionSql,
  lookups: readonly AgentLookup[],
): Promise<readonly (FoundAgent | undefined)[]> {
  const asked = lookups.map(askedOf);
  const hashes = lookups.flatMap(({ bootstrapTokenHash }) => bootstrapTokenHash ?? []);
  const rows = await tx`
    select ${recordColumns(tx)}, array(
      select token.token_hash from bootstrap_tokens token join agent_keys key using (agent_uid, key_fingerprint)
      where token.token_hash = any(${hashes}::text[]) and token.agent_uid = agents.uid) as vouching_hashes
    from agents where uid = any(array(
      select meant.uid
      from json_to_recordset(${JSON.stringify(asked)}::text::json) as asked (${lookupColumns(tx)})
      cross join lateral (${meantBy(tx)}) as meant))
    order by uid for update`;
  const found = new Map(rows.map((row) => [String(row.name), row]));
  return lookups.map(({ name, bootstrapTokenHash }) => {
    const row = found.get(name);
    return row && { record: recordOf(row), vouched: row.vouching_hashes.includes(bootstrapTokenHash) };
  });
}

function askedOf(lookup: AgentLookup) {
  return { ...lookup, uid: lookup.uid && uuidOrNull(lookup.uid) };
}

function lookupColumns(sql: Sql | TransactionSql) {
  return sql`name text, "orgId" text, "fallbackOrgId" text, fingerprint text, uid uuid`;
}

/** The agent that `asked` means, a row of lookups. */
function meantBy(sql: Sql | TransactionSql) {
  return sql`
    select agent.* from agents agent
      left join agent_pending_keys waiting on waiting.agent_uid = agent.uid and waiting.key_fingerprint = asked.fingerprint
    where agent.name = asked.name and (agent.key_fingerprint = asked.fingerprint or waiting.agent_uid is not null
      or agent.uid = asked.uid or agent.org_id = asked."orgId" or agent.org_id = asked."fallbackOrgId")
    order by agent.key_fingerprint = asked.fingerprint desc nulls last, waiting.agent_uid is not null desc,
      agent.uid = asked.uid desc nulls last, agent.org_id = asked."orgId" desc
    limit 1`;
}

export async function lockByName(tx: TransactionSql, orgId: string, name: string): Promise<AgentRecord | null> {
  const [row] = await tx`select ${recordColumns(tx)} from agents where org_id = ${orgId} and name = ${name} for update`;
  return row ? recordOf(row) : null;
}

export async function lockByUid(tx: TransactionSql, uid: string): Promise<AgentRecord | null> {
  const [row] = await tx`select ${recordColumns(tx)} from agents where uid = ${uid} for update`;
  return row ? recordOf(row) : null;
}

/**
 * Makes agents with their sixteen channels; those that another transaction has just made are left out. An approved agent's
 * key counts from now on as one that was approved.
 */
export async function insertAgents(
  tx: TransactionSql,
  agents: readonly {
    readonly orgId: string;
    readonly name: string;
    readonly publicKey: string;
    readonly keyFingerprint: string;
    readonly enrollment: Enrollment;
    readonly protocol: AgentProtocol;
    readonly remoteAddress: string | null;
    /** Of the enrolment token that it was let in with. */
    readonly tokenId: string | null;
  }[],
): Promise<readonly AgentRecord[]> {
  if (agents.length === 0) return [];
  const rows = await tx`
    with asked as (
      select * from json_to_recordset(${JSON.stringify(agents)}::text::json) as asked ("orgId" text, name text,
        "publicKey" text, "keyFingerprint" text, enrollment text, protocol text, "remoteAddress" text, "tokenId" text)
    ), made as (
      insert into agents (org_id, name, public_key, key_fingerprint, enrollment, key_protocol, v2_since)
      select "orgId", name, "publicKey", "keyFingerprint", enrollment, protocol,
        case when protocol = 'v2' and enrollment = 'approved' then now() end
      from asked order by "orgId", name
      on conflict (org_id, name) do nothing returning *
    ), listed as (
      insert into communication_channels (agent_id, agent_org_id, channel_name, channel_type)
      select uid, org_id, 'agent.' || uid || '.' || kind, 'agent_to_backend'
      from made, unnest(${[...eventKinds]}::text[]) as kind
      union all
      select uid, org_id, 'backend.' || uid || '.' || kind, 'backend_to_agent'
      from made, unnest(${[...commandKinds]}::text[]) as kind
    ), remembered as (
      insert into agent_keys (agent_uid, agent_org_id, key_fingerprint, protocol)
      select uid, org_id, key_fingerprint, key_protocol from made where enrollment = 'approved'
    ), audited as (
      ${auditingEach(
        tx,
        'agent.enrolled',
        tx`select org_id, uid::text, made.name, json_strip_nulls(json_build_object('protocol', protocol,
            'keyFingerprint', key_fingerprint, 'enrollment', made.enrollment, 'enrollmentTokenId', "tokenId")),
          ${agentColumns(tx, 'made')}
        from made join asked on org_id = "orgId" and made.name = asked.name`,
      )}
    )
    select made.*, v2_since is not null as refuses_v1, '{}'::text[] as closed_channels from made`;
  return rows.map(recordOf);
}

/**
 * Puts keys on record, `trusted` or as their agents stand. A key that is trusted settles who the agent is: nothing waits any
 * more; otherwise keys of the other protocol wait on. In an approved agent the key counts from now on as approved.
 */
export async function adoptKeys(
  tx: TransactionSql,
  keys: readonly (ShownKey & { readonly trusted: boolean })[],
): Promise<readonly AgentRecord[]> {
  if (keys.length === 0) return [];
  const rows = await tx`
    with asked as (
      select * from json_to_recordset(${JSON.stringify(keys)}::text::json) as asked ("agentUid" uuid, "publicKey" text,
        "keyFingerprint" text, protocol text, "remoteAddress" text, trusted boolean)
    ), before as (
      select uid, key_fingerprint as previous_fingerprint from agents where uid in (select "agentUid" from asked)
    ), adopted as (
      update agents set public_key = "publicKey", key_fingerprint = "keyFingerprint", key_protocol = protocol,
        successor_key_fingerprint = null, key_reset = false, updated_at = now(),
        enrollment = case when trusted then 'approved' else enrollment end,
        v2_since = case when protocol = 'v2' and (trusted or enrollment = 'approved') then coalesce(v2_since, now()) else v2_since end
      from asked where agents.uid = "agentUid"
      returning agents.*, trusted, "remoteAddress"
    ), settled as (
      delete from agent_pending_keys waiting using adopted
      where waiting.agent_uid = adopted.uid and (trusted or waiting.protocol = adopted.key_protocol)
    ), remembered as (
      insert into agent_keys (agent_uid, agent_org_id, key_fingerprint, protocol)
      select uid, org_id, key_fingerprint, key_protocol from adopted where enrollment = 'approved'
      on conflict do nothing
    ), audited as (
      ${auditingEach(
        tx,
        'agent.key-changed',
        tx`select org_id, uid::text, name, json_build_object('protocol', key_protocol, 'keyFingerprint', key_fingerprint,
            'previousKeyFingerprint', previous_fingerprint, 'enrollment', enrollment),
          ${agentColumns(tx, 'adopted')}
        from adopted join before using (uid)`,
      )}
    )
    select ${recordColumns(tx, 'adopted')} from adopted`;
  return rows.map(recordOf);
}

/**
 * Lets keys wait for approval, each in the place of the one of its protocol that waited before. Whoever shows a new key time
 * and again is put on record once a minute: nothing is trusted for it, and approvals tell which key they mean.
 */
export async function pendKeys(tx: TransactionSql, keys: readonly ShownKey[]): Promise<void> {
  if (keys.length === 0) return;
  await tx`
    with asked as (
      select * from json_to_recordset(${JSON.stringify(keys)}::text::json)
        as asked ("agentUid" uuid, protocol text, "publicKey" text, "keyFingerprint" text, "remoteAddress" text)
    ), pended as (
      insert into agent_pending_keys as waiting (agent_uid, agent_org_id, protocol, public_key, key_fingerprint)
      select "agentUid", (select org_id from agents where uid = "agentUid"), protocol, "publicKey", "keyFingerprint"
      from asked order by "agentUid"
      on conflict (agent_uid, protocol) do update set public_key = excluded.public_key,
        key_fingerprint = excluded.key_fingerprint, since = excluded.since
      where waiting.key_fingerprint <> excluded.key_fingerprint
      returning agent_uid, protocol, key_fingerprint
    )
    ${auditingEach(
      tx,
      'agent.key-pending',
      tx`select org_id, uid::text, name, json_build_object('protocol', pended.protocol, 'keyFingerprint', pended.key_fingerprint),
          ${agentColumns(tx, 'agents')}
        from pended join agents on uid = agent_uid join asked on "agentUid" = uid
        where not exists (
          select from ${allEntries(tx)} as entry where subject_id = uid::text and action = 'agent.key-pending' and at > now() - interval '1 minute')`,
    )}`;
}

/** Makes links the owners of their agents where their key is the one on record. */
export async function takeOwnership(
  sql: Sql | TransactionSql,
  connections: readonly (NewConnection & { readonly agentUid: string })[],
): Promise<ReadonlyMap<string, Ownership>> {
  if (connections.length === 0) return new Map();
  const rows = await sql<{ uid: string; epoch: number; was_connected: boolean }[]>`
    with asked as materialized (
      select * from json_to_recordset(${JSON.stringify(connections)}::text::json)
        as asked ("agentUid" uuid, ${connectionColumns(sql)})
    ), owned as (
      ${raisingEpochs(sql, sql`asked`, sql`select "agentUid" from asked`, sql`agents.uid = asked."agentUid"`)}
    ), ${connectingOwned(sql)}
    select uid, epoch, coalesce(was_connected, false) as was_connected from owned ${withBefore(sql)}`;
  return new Map(rows.map((row) => [row.uid, { epoch: row.epoch, wasConnected: row.was_connected }]));
}

/** A trusted agent that shows the key on record, and nothing else that would have to be decided. */
export interface ReturningAgent {
  readonly lookup: AgentLookup;
  readonly keyFingerprint: string;
  readonly connection: NewConnection;
  /** v1 alone: what the headers call it, and the nonce that it signed. */
  readonly v1: { readonly headerRef: string; readonly nonce: ShownNonce } | null;
}

/**
 * Lets agents in that are trusted with this very key, and makes their links the owners: the whole of an admission in one
 * statement. Gives them by name; for all others nothing was done, unless a nonce was noted, which the same attempt may show
 * again. No two may have a name or a nonce in common.
 */
export async function readmit(
  sql: Sql,
  returning: readonly ReturningAgent[],
): Promise<ReadonlyMap<string, Ownership & { readonly record: AgentRecord }>> {
  if (returning.length === 0) return new Map();
  const asked = returning.map(({ lookup, keyFingerprint, connection, v1 }) => ({
    ...{ ...askedOf(lookup), ...connection, ...v1?.nonce, keyFingerprint },
    headerRef: v1?.headerRef ?? null,
  }));
  const rows = await sql`
    with asked as materialized (
      select * from json_to_recordset(${JSON.stringify(asked)}::text::json) as asked (
        "headerRef" text, "keyFingerprint" text, ${lookupColumns(sql)}, ${connectionColumns(sql)}, ${nonceColumns(sql)})
    ), trusted as (
      select meant.uid as "agentUid", asked.* from asked cross join lateral (${meantBy(sql)}) as meant
      where meant.key_fingerprint = "keyFingerprint" and meant.enrollment = 'approved'
        and case protocol
          when 'v1' then v2_since is null and ("headerRef" = asked.name or lower("headerRef") = meant.uid_text)
          else true end
        and (protocol = 'v1') = exists (select from v1_keys where v1_keys.key_fingerprint = "keyFingerprint")
    ), fresh as (
      ${rememberingNonces(sql, sql`select nonce, "nonceLifeMs", "attemptId" from trusted where protocol = 'v1'`)}
    ), returning_ones as materialized (
      select trusted.* from trusted where protocol <> 'v1' or nonce in (select nonce from fresh)
    ), locked as materialized (
      select uid from agents where uid = any(array(select "agentUid" from returning_ones)) order by uid for update
    ), owned as (
      ${raisingEpochs(
        sql,
        sql`returning_ones asked`,
        sql`select uid from locked`,
        // As the row is by now.
        sql`agents.uid = asked."agentUid" and enrollment = 'approved' and (protocol <> 'v1' or v2_since is null)`,
      )}
    ), ${connectingOwned(sql)}
    select coalesce(was_connected, false) as was_connected, ${recordColumns(sql, 'owned')} from owned ${withBefore(sql)}`;
  return new Map(
    rows.map((row) => {
      const record = recordOf(row);
      return [record.name, { record, epoch: record.epoch, wasConnected: row.was_connected }];
    }),
  );
}

function connectionColumns(sql: Sql | TransactionSql) {
  return sql`"publicKey" text, "sessionTokenHash" text, "sessionExpiresAt" timestamptz, "instanceId" text, protocol text,
    dialect text, "remoteAddress" text`;
}

/**
 * Milliseconds are the least of an epoch, so that a restored database does not fall behind (protocol-v2.md, "Reliability").
 * By `any`, as `lockAgents` does.
 */
function raisingEpochs(sql: Sql | TransactionSql, asked: Fragment, uids: Fragment, which: Fragment) {
  return sql`
    update agents set epoch = greatest(epoch + 1, (extract(epoch from clock_timestamp()) * 1000)::bigint),
      dialect = coalesce(asked.dialect, agents.dialect)
    from ${asked} where agents.uid = any(array(${uids})) and ${which} and public_key = "publicKey"
    returning agents.uid, uid_text, org_id, agents.name, enrollment, public_key, agents.key_fingerprint, key_protocol,
      successor_key_fingerprint, key_reset, epoch, v2_since, registered_at,
      protocol, "publicKey", "sessionTokenHash", "sessionExpiresAt", "instanceId", "remoteAddress"`;
}

/**
 * Puts the connections of those who are `owned` on record. `before` locks the rows, so that it tells the truth about an
 * earlier link that is leaving at this moment.
 */
function connectingOwned(sql: Sql | TransactionSql) {
  return sql`
    before as materialized (
      select agent_id, is_active and exists (
        select from instances where instances.id = instance_id and lease_until > now()) as was_connected, public_key as previous_key
      from agent_connections
      where agent_id = any(array(select uid_text from owned)) order by agent_id for update
    ), written as (
      insert into agent_connections as connection (agent_id, agent_org_id, public_key, session_token, epoch, instance_id, protocol,
        remote_address, session_expires_at, presence_at)
      select uid_text, org_id, "publicKey", "sessionTokenHash", epoch, "instanceId", protocol, "remoteAddress", "sessionExpiresAt",
        case when was_connected then null else now() end
      from owned ${withBefore(sql)} order by uid
      on conflict (agent_id) do update set public_key = excluded.public_key, session_token = excluded.session_token,
        epoch = excluded.epoch, instance_id = excluded.instance_id, protocol = excluded.protocol,
        remote_address = excluded.remote_address, session_expires_at = excluded.session_expires_at,
        connected_at = now(), last_seen = now(), is_active = true, updated_at = now(),
        presence_at = coalesce(excluded.presence_at, connection.presence_at), presence_reason = null,
        last_v1_at = case when connection.protocol = 'v1' then connection.last_seen else connection.last_v1_at end,
        last_v2_at = case when connection.protocol = 'v2' then connection.last_seen else connection.last_v2_at end
    ), audited as (
      ${auditingEach(
        sql,
        'agent.superseded',
        sql`select org_id, uid_text, name, json_build_object('protocol', protocol, 'keyFingerprint', key_fingerprint),
          ${agentColumns(sql, 'owned')}
        from owned ${withBefore(sql)} where was_connected and previous_key <> "publicKey"`,
      )}
    )`;
}

function withBefore(sql: Sql | TransactionSql) {
  return sql`left join before on before.agent_id = owned.uid_text`;
}

/** Of a row of `agents` and what was asked: the agent as an actor (`auditingEach`). */
function agentColumns(sql: Sql | TransactionSql, agents: string) {
  return sql`'agent', ${sql(agents)}.uid::text, ${sql(agents)}.name, "remoteAddress", null`;
}

/** The agents' rows as their links need them. */
export async function readRecords(sql: Sql, uids: readonly string[]): Promise<AgentRecord[]> {
  const rows = await sql`select ${recordColumns(sql)} from agents where uid = any(${[...uids]}::uuid[])`;
  return rows.map(recordOf);
}

/** What may pass over a link that uses `publicKey`. */
export function standingOf(record: AgentRecord, publicKey: string): LinkStanding {
  const holdsKey = record.publicKey === publicKey;
  return {
    agentUid: record.uid,
    agentEpoch: record.epoch,
    name: record.name,
    orgId: record.orgId,
    enrollment: record.enrollment,
    holdsKey,
    trusted: holdsKey && record.enrollment === 'approved',
    refusesV1: record.refusesV1,
    closedEventKinds: new Set(record.closedChannels.flatMap((channel) => parseAgentChannel(channel)?.kind ?? [])),
  };
}

function recordColumns(sql: Sql | TransactionSql, agents = 'agents') {
  const agent = sql(agents);
  return sql`${agent}.uid, ${agent}.org_id, ${agent}.name, enrollment, public_key, ${agent}.key_fingerprint, key_protocol,
    successor_key_fingerprint, key_reset, ${agent}.epoch, v2_since is not null as refuses_v1, registered_at, array(
      select channel_name from communication_channels
      where agent_id = ${agent}.uid::text and not is_active) as closed_channels`;
}

function recordOf(row: Row): AgentRecord {
  return {
    uid: row.uid,
    orgId: row.org_id,
    name: row.name,
    enrollment: row.enrollment,
    publicKey: row.public_key,
    keyFingerprint: row.key_fingerprint,
    keyProtocol: row.key_protocol,
    successorKeyFingerprint: row.successor_key_fingerprint,
    keyReset: row.key_reset,
    refusesV1: row.refuses_v1,
    epoch: row.epoch,
    registeredAt: row.registered_at === null ? null : new Date(row.registered_at),
    closedChannels: row.closed_channels,
  };
}
