import type { Fragment, Row, Sql } from 'postgres';
import type { Scope } from '../access/scope.ts';
import type { Database } from '../db/database.ts';
import type { KeysetRange } from '../paging.ts';
import type { Agent, AgentFilter, AgentProtocol, PendingKey } from './agent.ts';

/** Where an agent stands in the list by name. */
export interface AgentKey {
  readonly name: string;
  readonly uid: string;
}

/** A connection counts while the lease of its instance runs. */
export function liveConnection(sql: Sql): Fragment {
  return sql`connection.is_active and exists (
    select from instances where instances.id = connection.instance_id and instances.lease_until > now())`;
}

/** The SQL by which consumers read agents. */
export function createAgentQueries(database: Pick<Database, 'sql' | 'as'>, defaultOrg: string) {
  const { sql } = database;
  const select = sql`
    select agent.uid, agent.name, agent.org_id, agent.host_id, agent.hostname, agent.version, agent.machine_id_hash,
      agent.platform, agent.network, agent.capabilities, agent.labels, agent.note, agent.enrollment, agent.key_fingerprint,
      agent.v2_since, agent.dialect, agent.created_at, connection.last_seen, connection.protocol, connection.last_v1_at,
      connection.last_v2_at, connection.instance_id, connection.remote_address, connection.connected_at, connection.session_expires_at,
      coalesce(${liveConnection(sql)}, false) as connected, (
        select json_agg(json_build_object('fingerprint', key_fingerprint, 'protocol', protocol, 'since', since) order by since desc)
        from agent_pending_keys where agent_uid = agent.uid) as pending_keys
    from agents agent left join agent_connections connection on connection.agent_id = agent.uid_text`;

  return {
    /** Agents that a ref names, the best match first: by uid, then in the default organisation. */
    async findByRef(scope: Scope, ref: string): Promise<Agent[]> {
      const rows = await database.as(scope)`
        ${select} where (agent.uid = ${uuidOrNull(ref)} or agent.name = ${ref}) ${inScope(sql, scope)}
        order by agent.uid = ${uuidOrNull(ref)} desc nulls last, agent.org_id = ${defaultOrg} desc limit 2`;
      return rows.map(agentOf);
    },

    async findAll(scope: Scope, uids: readonly string[]): Promise<Agent[]> {
      const wanted = uids.filter((uid) => uuidOrNull(uid) !== null);
      const rows = await database.as(scope)`${select} where agent.uid = any(${wanted}::uuid[]) ${inScope(sql, scope)}`;
      return rows.map(agentOf);
    },

    /** Up to `range.limit + 1` agents in the range's direction; all of them without a range. */
    async list(scope: Scope, filter: AgentFilter, range: KeysetRange<AgentKey> | null): Promise<Agent[]> {
      const order = range?.backwards
        ? sql`order by agent.name desc, agent.uid desc`
        : sql`order by agent.name, agent.uid`;
      const rows = await database.as(scope)`
        ${select} where ${matching(sql, filter)} ${inScope(sql, scope)} ${range ? inRange(sql, range) : sql``}
        ${order} ${range ? sql`limit ${range.limit + 1}` : sql``}`;
      return rows.map(agentOf);
    },

    async count(scope: Scope, filter: AgentFilter): Promise<number> {
      const [row] = await database.as(scope)<{ count: number }[]>`
        select count(*) from agents agent left join agent_connections connection on connection.agent_id = agent.uid_text
        where ${matching(sql, filter)} ${inScope(sql, scope)}`;
      return row?.count ?? 0;
    },

    async countAwaitingApproval(scope: Scope): Promise<number> {
      const [row] = await database.as(scope)<{ count: number }[]>`
        select count(*) from agents agent where ${awaitsApproval(sql)} ${inScope(sql, scope)}`;
      return row?.count ?? 0;
    },

    async countConnected(scope: Scope, protocol: AgentProtocol | undefined): Promise<number> {
      const [row] = await database.as(scope)<{ count: number }[]>`
        select count(*) from agents agent join agent_connections connection on connection.agent_id = agent.uid_text
        where ${liveConnection(sql)} ${protocol ? sql`and connection.protocol = ${protocol}` : sql``} ${inScope(sql, scope)}`;
      return row?.count ?? 0;
    },

    async instances(): Promise<string[]> {
      const rows = await sql<{ id: string }[]>`select id from instances where lease_until > now() order by id`;
      return rows.map((row) => row.id);
    },

    async activeChannels(
      scope: Scope,
      uids: readonly string[],
    ): Promise<{ agentUid: string; name: string; channel: string }[]> {
      const [first, ...others] = uids;
      if (first === undefined) return [];
      // For one agent without `any`, for which Postgres would make a new plan each time: that takes longer than to follow it.
      const ofAgents =
        others.length === 0
          ? sql`channel.agent_id = ${first} and agent.uid = ${first}::uuid`
          : sql`channel.agent_id = any(${[...uids]}::text[]) and agent.uid = any(${[...uids]}::uuid[])`;
      return await database.as(scope)<{ agentUid: string; name: string; channel: string }[]>`
        select channel.agent_id as "agentUid", agent.name, channel.channel_name as channel
        from communication_channels channel join agents agent on agent.uid_text = channel.agent_id
        where ${ofAgents} and channel.is_active ${inScope(sql, scope)}
        order by channel.channel_type, channel.channel_name`;
    },
  };
}

export type AgentQueries = ReturnType<typeof createAgentQueries>;

/** Found by the few that wait, not by a look at every agent. */
export function awaitsApproval(sql: Sql): Fragment {
  return sql`(agent.enrollment <> 'revoked' and agent.uid in (
    select uid from agents where enrollment = 'pending' union all select agent_uid from agent_pending_keys))`;
}

/** The conditions of a filter over `agent` and, left-joined, `connection`. */
export function matching(sql: Sql, filter: AgentFilter): Fragment {
  const { connected, enrollment, protocol, orgId, labels, agentRefs, search, hostname, hostId, ip } = filter;
  const live = sql`coalesce(${liveConnection(sql)}, false)`;
  return sql`true
    ${connected === undefined ? sql`` : sql`and ${live} = ${connected}`}
    ${enrollment === undefined ? sql`` : sql`and agent.enrollment = ${enrollment}`}
    ${protocol === undefined ? sql`` : sql`and ${live} and connection.protocol = ${protocol}`}
    ${orgId === undefined ? sql`` : sql`and agent.org_id = ${orgId}`}
    ${labels === undefined ? sql`` : sql`and agent.labels @> ${[...labels]}::text[]`}
    ${agentRefs === undefined ? sql`` : sql`and (agent.name = any(${[...agentRefs]}::text[]) or agent.uid = any(${agentRefs.flatMap((ref) => uuidOrNull(ref) ?? [])}::uuid[]))`}
    ${search === undefined ? sql`` : sql`and (agent.name ilike ${contains(search)} or agent.hostname ilike ${contains(search)})`}
    ${hostname === undefined ? sql`` : sql`and agent.hostname = ${hostname}`}
    ${hostId === undefined ? sql`` : sql`and coalesce(agent.host_id, agent.name) = ${hostId}`}
    ${ip === undefined ? sql`` : sql`and jsonb_path_exists(agent.network, '$.** ? (@ == $ip || @ starts with $net)', jsonb_build_object('ip', ${ip}::text, 'net', ${`${ip}/`}::text))`}`;
}

export function inScope(sql: Sql, scope: Scope): Fragment {
  return scope.orgId === null ? sql`` : sql`and agent.org_id = ${scope.orgId}`;
}

function inRange(sql: Sql, range: KeysetRange<AgentKey>): Fragment {
  const { after, before } = range;
  return sql`
    ${after ? sql`and (agent.name, agent.uid) > (${after.name}, ${after.uid}::uuid)` : sql``}
    ${before ? sql`and (agent.name, agent.uid) < (${before.name}, ${before.uid}::uuid)` : sql``}`;
}

export function uuidOrNull(text: string): string | null {
  return /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i.test(text) ? text.toLowerCase() : null;
}

/** A pattern for ILIKE that takes the text literally. */
function contains(text: string): string {
  return `%${text.replace(/[\\%_]/g, '\\$&')}%`;
}

function agentOf(row: Row): Agent {
  return {
    uid: row.uid,
    name: row.name,
    orgId: row.org_id,
    hostId: row.host_id,
    hostname: row.hostname,
    version: row.version,
    machineIdHash: row.machine_id_hash,
    platform: row.platform,
    network: row.network,
    capabilities: row.capabilities,
    labels: row.labels,
    note: row.note,
    enrollment: row.enrollment,
    keyFingerprint: row.key_fingerprint,
    pendingKeys: (row.pending_keys ?? []).map(pendingKeyOf),
    v2Since: dateOf(row.v2_since),
    dialect: row.dialect,
    session: row.connected
      ? {
          protocol: row.protocol,
          instance: row.instance_id,
          remoteAddress: row.remote_address,
          connectedAt: new Date(row.connected_at),
          expiresAt: new Date(row.session_expires_at),
        }
      : null,
    lastSeenAt: dateOf(row.last_seen),
    lastV1At: dateOf(row.protocol === 'v1' ? row.last_seen : row.last_v1_at),
    lastV2At: dateOf(row.protocol === 'v2' ? row.last_seen : row.last_v2_at),
    createdAt: new Date(row.created_at),
  };
}

function pendingKeyOf(key: { fingerprint: string; protocol: AgentProtocol; since: string }): PendingKey {
  return { fingerprint: key.fingerprint, protocol: key.protocol, since: new Date(key.since) };
}

function dateOf(value: Date | string | null): Date | null {
  return value === null ? null : new Date(value);
}
