import type { Fragment } from 'postgres';
import type { Scope } from '../access/scope.ts';
import {
  agentChannelName,
  commandChannelName,
  parseAgentChannel,
  parseCommandChannel,
} from '../agent-gateway/wire/channels.ts';
import type { AuditedAction } from '../audit/actions.ts';
import type { Changer } from '../audit/actor.ts';
import { auditing, beginningOf, detailsOf } from '../audit/auditing.ts';
import type { Bus } from '../bus/bus.ts';
import type { Clock } from '../clock.ts';
import type { Database } from '../db/database.ts';
import { AegisError } from '../errors.ts';
import { groupBy } from '../group-by.ts';
import { decodeCursor, encodeCursor, keysetRange, pageOf } from '../paging.ts';
import type { Agent } from './agent.ts';
import type { Fleet } from './fleet.ts';
import { createPresenceFeed } from './presence-feed.ts';
import { type AgentKey, awaitsApproval, createAgentQueries, inScope, matching, uuidOrNull } from './queries.ts';

export function createFleet(deps: {
  readonly database: Database;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly defaultOrg: string;
  readonly logError: (error: unknown, context: string) => void;
}): Fleet {
  const { bus, defaultOrg } = deps;
  const feed = createPresenceFeed(deps);
  const { sql, as } = deps.database;
  const queries = createAgentQueries(deps.database, defaultOrg);

  async function find(scope: Scope, ref: string): Promise<Agent | null> {
    const [best, next] = await queries.findByRef(scope, ref);
    if (best && next && best.uid !== ref.toLowerCase() && best.orgId !== defaultOrg)
      throw new AegisError('AGENT_NAME_AMBIGUOUS');
    return best ?? null;
  }

  async function require(scope: Scope, ref: string): Promise<Agent> {
    const agent = await find(scope, ref);
    if (!agent) throw new AegisError('AGENT_NOT_FOUND');
    return agent;
  }

  /** What is done to one agent's row. */
  interface Change {
    readonly action: AuditedAction;
    readonly assignments: Fragment;
    readonly details?: Readonly<Record<string, unknown>>;
  }

  /** Changes one agent's row and gives the agent as it is then. */
  async function change(by: Changer, ref: string, { action, assignments, details = {} }: Change): Promise<Agent> {
    const agent = await require(by, ref);
    await as(by)`
      with changed as (
        update agents set ${assignments}, updated_at = now() where uid = ${agent.uid} returning uid, name, org_id
      )
      ${auditing(sql, by, action, sql`select org_id, uid::text, name, ${detailsOf(sql, details)} from changed`)}`;
    return require(by, agent.uid);
  }

  function subject({ orgId, uid, name }: Agent, details: Readonly<Record<string, unknown>>): Fragment {
    return sql`select ${orgId}::text, ${uid}::text, ${name}::text, ${detailsOf(sql, details)}`;
  }

  function notify(...agentUids: string[]): void {
    if (agentUids.length > 0) bus.publish('agents', { agentUids });
  }

  /**
   * Approves the agents that a condition selects and that wait; their uids. What is approved is the key with the fingerprint
   * where one is given; else the agent with the key on record, or the newest key that waits beside a trusted one. What else
   * waits may go on waiting, but under an approved v2 key, which ends v1, nothing does.
   */
  async function approveWhere(by: Changer, condition: Fragment, fingerprint: string | null = null): Promise<string[]> {
    const rows = await as(by)<{ uid: string }[]>`
      with chosen as (
        select agent.uid, agent.enrollment, agent.key_fingerprint as previous_fingerprint
        from agents agent left join agent_connections connection on connection.agent_id = agent.uid_text
        where ${awaitsApproval(sql)} and ${condition} for update of agent
      ), key as (
        select distinct on (uid) uid, waiting.protocol, waiting.public_key, waiting.key_fingerprint
        from chosen join agent_pending_keys waiting on waiting.agent_uid = uid
        where waiting.key_fingerprint = ${fingerprint} or ${fingerprint}::text is null and enrollment = 'approved'
        order by uid, since desc
      ), approved as (
        update agents set enrollment = 'approved', public_key = coalesce(key.public_key, agents.public_key),
          key_fingerprint = coalesce(key.key_fingerprint, agents.key_fingerprint),
          key_protocol = coalesce(key.protocol, agents.key_protocol), successor_key_fingerprint = null, updated_at = now(),
          v2_since = case when coalesce(key.protocol, agents.key_protocol) = 'v2' then coalesce(v2_since, now()) else v2_since end
        from chosen left join key on key.uid = chosen.uid
        where agents.uid = chosen.uid
        returning agents.uid, agents.name, agents.org_id, agents.key_fingerprint, agents.key_protocol, chosen.previous_fingerprint
      ), settled as (
        delete from agent_pending_keys waiting using approved
        where waiting.agent_uid = approved.uid and (waiting.protocol = key_protocol or key_protocol = 'v2')
      ), remembered as (
        insert into agent_keys (agent_uid, agent_org_id, key_fingerprint, protocol)
        select uid, org_id, key_fingerprint, key_protocol from approved on conflict do nothing
      ), audited as (
        ${auditing(
          sql,
          by,
          'agent.approve',
          sql`select org_id, uid::text, name, json_strip_nulls(json_build_object('protocol', key_protocol,
            'keyFingerprint', key_fingerprint, 'previousKeyFingerprint', nullif(previous_fingerprint, key_fingerprint)))
          from approved`,
        )}
      )
      select uid from approved`;
    const uids = rows.map((row) => row.uid);
    notify(...uids);
    return uids;
  }

  return {
    find,
    findAll: (scope, uids) => queries.findAll(scope, uids),
    async page(scope, filter, request) {
      const range = keysetRange(request, keyOf);
      return pageOf(range, await queries.list(scope, filter, range));
    },
    count: (scope, filter) => queries.count(scope, filter),
    all: (scope, filter) => queries.list(scope, filter, null),
    cursorOf: (agent) => encodeCursor('agent', `${agent.uid}:${agent.name}`),
    async activeChannels(scope, uids) {
      const channels = groupBy(await queries.activeChannels(scope, uids), (row) => row.agentUid);
      return new Map(
        uids.map((uid) => [uid, (channels.get(uid) ?? []).map(({ name, channel }) => longName(name, channel))]),
      );
    },

    async approve(by, ref, keyFingerprint) {
      const agent = await require(by, ref);
      if (agent.enrollment === 'revoked') throw new AegisError('AGENT_REVOKED');
      const awaited = keyFingerprint?.toLowerCase() ?? null;
      const isAwaited = sql`(agent.enrollment = 'pending' and agent.key_fingerprint = ${awaited} or exists (
        select from agent_pending_keys where agent_uid = agent.uid and key_fingerprint = ${awaited}))`;
      const approved = await approveWhere(
        by,
        sql`agent.uid = ${agent.uid} ${awaited === null ? sql`` : sql`and ${isAwaited}`}`,
        awaited,
      );
      if (awaited !== null && approved.length === 0 && agent.keyFingerprint !== awaited)
        throw new AegisError('AGENT_KEY_NOT_PENDING');
      return require(by, agent.uid);
    },
    async approveAll(by, filter) {
      return (await approveWhere(by, sql`${matching(sql, filter)} ${inScope(sql, by)}`)).length;
    },
    async revoke(by, ref, reason) {
      const { uid } = await change(by, ref, {
        action: 'agent.revoke',
        assignments: sql`enrollment = 'revoked', revoked_reason = ${reason}, revoked_at = now(), key_reset = false,
          successor_key_fingerprint = null`,
        details: { reason: reason && beginningOf(reason) },
      });
      await as(by)`
        with waiting as (delete from agent_pending_keys where agent_uid = ${uid}),
          tokens as (
            update enrollment_tokens token set revoked_at = now() from agents
            where uid = ${uid} and token.org_id = agents.org_id and token.agent_name = agents.name
              and token.used_at is null and token.revoked_at is null)
        delete from bootstrap_tokens where agent_uid = ${uid}`;
      bus.publish('disconnect', { agentUids: [uid], reason: 'AGENT_REVOKED' });
      return require(by, uid);
    },
    async resetKey(by, ref) {
      const agent = await change(by, ref, {
        action: 'agent.reset-key',
        assignments: sql`key_reset = true, v2_since = null, successor_key_fingerprint = null`,
      });
      await as(by)`delete from bootstrap_tokens where agent_uid = ${agent.uid}`;
      return agent;
    },
    setLabels: (by, ref, add, remove) =>
      change(by, ref, {
        action: 'agent.label',
        assignments: sql`labels = array(
          (select unnest(labels) union select unnest(${[...add]}::text[])) except select unnest(${[...remove]}::text[])
          order by 1)`,
        details: { add, remove },
      }),
    setNote: (by, ref, note) =>
      change(by, ref, {
        action: 'agent.note',
        assignments: sql`note = ${note}`,
        details: { note: beginningOf(note), characters: note.length },
      }),
    async setChannelActive(by, ref, channel, active) {
      const agent = await require(by, ref);
      const names = storedChannelNames(agent, channel);
      if (names.length === 0) throw new AegisError('CHANNEL_UNKNOWN');
      const details = { channels: names.map((name) => longName(agent.name, name)), active };
      await as(by)`
        with changed as (
          update communication_channels set is_active = ${active}, updated_at = now()
          where agent_id = ${agent.uid} and channel_name = any(${names}::text[])
        )
        ${auditing(sql, by, 'agent.channel', subject(agent, details))}`;
      notify(agent.uid);
      return agent;
    },
    async disconnect(by, ref) {
      const agent = await require(by, ref);
      // Kept, so that a gateway finds it that no hint reaches.
      await change(by, agent.uid, {
        action: 'agent.disconnect',
        assignments: sql`disconnect_epoch = epoch, disconnect_asked_at = now()`,
      });
      bus.publish('disconnect', { agentUids: [agent.uid], reason: 'LINK_DISCONNECTED' });
      return agent;
    },

    countAwaitingApproval: (scope) => queries.countAwaitingApproval(scope),
    countConnected: (scope, protocol) => queries.countConnected(scope, protocol),
    instances: () => queries.instances(),
    presence: feed.follow,
  };
}

function keyOf(cursor: string): AgentKey {
  const key = decodeCursor('agent', cursor);
  const uid = uuidOrNull(key.slice(0, 36));
  // No name holds NUL, which Postgres does not take.
  if (uid === null || key[36] !== ':' || key.includes('\0')) throw new AegisError('CURSOR_INVALID');
  return { name: key.slice(37), uid };
}

/** A channel as it is stored, by uid, and as people know it, by name. */
function longName(agentName: string, stored: string): string {
  const event = parseAgentChannel(stored);
  if (event) return agentChannelName(agentName, event.kind);
  const command = parseCommandChannel(stored);
  return command ? commandChannelName(agentName, command.kind) : stored;
}

/** The stored names that a channel's long or short name means; a bare `policies` would be two and is none. */
function storedChannelNames(agent: Agent, channel: string): string[] {
  const event = parseAgentChannel(channel);
  const command = channel.startsWith('backend.') ? parseCommandChannel(channel) : null;
  const ref = event?.agentRef ?? command?.agentRef ?? null;
  if (ref !== null && ref !== agent.name && ref !== agent.uid) return [];
  if (event) return [agentChannelName(agent.uid, event.kind)];
  return command ? [commandChannelName(agent.uid, command.kind)] : [];
}
