import type { Fragment, Row, Sql } from 'postgres';
import type { Scope } from '../access/scope.ts';
import { parseCommandChannel, shortCommandChannelName } from '../agent-gateway/wire/channels.ts';
import type { Changer } from '../audit/actor.ts';
import { auditing, beginningOf, detailsOf } from '../audit/auditing.ts';
import type { Database } from '../db/database.ts';
import type { AgentFilter } from '../fleet/agent.ts';
import { inScope, liveConnection, matching, uuidOrNull } from '../fleet/queries.ts';
import type { KeysetRange } from '../paging.ts';
import {
  type Broadcast,
  type BroadcastPace,
  type BroadcastProgress,
  type Message,
  type MessageStatus,
  messageStatuses,
} from './message.ts';
import type { BroadcastOutcome } from './messages.ts';
import {
  closedFailure,
  fullFailure,
  handoffFailure,
  inRange,
  inStatus,
  messagesOf,
  type NewMessage,
  inScope as ofOrganisation,
  sentDetails,
} from './queries.ts';

/** What became of asking for a broadcast; `taken` is said of its idempotency key. */
export type NewBroadcast =
  | { readonly outcome: 'accepted'; readonly broadcast: Broadcast; readonly queued: number; readonly failed: number }
  | { readonly outcome: 'taken' }
  | { readonly outcome: 'tooLarge'; readonly targets: number };

/** The SQL by which broadcasts are made and read. What happens to them later is in `broadcast-transitions.ts`. */
export function createBroadcastQueries({ sql, as }: Pick<Database, 'sql' | 'as'>) {
  /** Why a message for `agent` fails at once, or null. */
  function failureAtOnce(kind: Message['kind'], maxOpen: number): Fragment {
    return sql`case
      when agent.dialect = 'handoff' then ${handoffFailure}
      when exists (
        select from communication_channels channel where channel.agent_id = agent.uid_text and not channel.is_active
          and channel.channel_name = 'backend.' || agent.uid || ${`.${kind}`}) then ${closedFailure}
      when exists (
        select from message_queue open where open.agent_id = agent.uid_text and open.processed_at is null
        offset ${maxOpen - 1}) then ${fullFailure} end`;
  }

  return {
    /**
     * Makes a broadcast with all its messages in one statement; nothing where its idempotency key is taken, or where its
     * messages were to take more than `maxBytes`. In the order of uids, by which the indexes grow in one place at a time.
     */
    async insert(
      by: Changer,
      filter: AgentFilter,
      message: NewMessage,
      pace: BroadcastPace,
      limits: { readonly maxOpen: number; readonly maxBytes: number },
    ): Promise<NewBroadcast> {
      const channel = shortCommandChannelName(message.kind);
      const payloadBytes = Buffer.byteLength(message.payloadText);
      const maxTargets = Math.floor(limits.maxBytes / payloadBytes);
      const rate = pace.ratePerSecond ?? null;
      const [row] = await as(by)`
        with target as materialized (
          select agent.uid_text, agent.name, agent.org_id, ${failureAtOnce(message.kind, limits.maxOpen)} as failure
          from agents agent left join agent_connections connection on connection.agent_id = agent.uid_text
          where ${matching(sql, filter)} and agent.enrollment <> 'revoked' ${inScope(sql, by)}
          order by agent.uid
        ), total as (
          select count(*) as targets, count(failure) as failed from target
        ), made as (
          insert into broadcasts (org_id, channel, idempotency_key, request_hash, rate_per_second, abort_at_failure_percent,
            failed_at_once, payload_bytes)
          select ${by.orgId}, ${channel}, ${message.idempotencyKey}, ${message.requestHash}, ${rate}::integer,
            ${pace.abortAtFailurePercent ?? null}::integer, failed, ${payloadBytes}
          from total where targets <= ${maxTargets}
          on conflict do nothing returning *
        ), accepted as (
          insert into message_queue (agent_id, agent_name, org_id, channel, message_type, payload, encrypted_payload, nonce,
            signature, priority, max_retries, expires_at, traceparent, broadcast_id, status, held, failure, processed_at)
          select target.uid_text, target.name, target.org_id, ${channel}, ${message.type}, ${message.payloadText}, '', '', '',
            ${message.priorityRank}::smallint, ${message.maxRetries}::integer,
            now() + ${message.ttlMs}::float8 * interval '1 millisecond', ${by.origin?.traceparent ?? null}, made.id,
            case when failure is null then 'pending' else 'failed' end, failure is null and ${rate}::integer is not null,
            failure, case when failure is not null then now() end
          from made, target
        ), counted as (
          insert into broadcast_counts (broadcast_id, status, count)
          select made.id, counts.status, counts.count from made, total,
            lateral (values ('pending', targets - failed), ('failed', failed)) as counts (status, count)
          where counts.count > 0
        ), audited as (
          ${auditing(
            sql,
            by,
            'broadcast.send',
            // One for each organisation that it reaches, so that each finds it in its own chain.
            sql`select reached.org_id, made.id::text, null, json_build_object('targets', targets, 'request', ${detailsOf(
              sql,
              {
                ...sentDetails(message),
                ...pace,
                filter: beginningOf(JSON.stringify(filter)),
              },
            )})
            from made, (
              select org_id, count(*) as targets from target group by org_id
              union all select ${by.orgId}::text, 0 where not exists (select from target)
            ) as reached (org_id, targets)`,
          )}
        )
        select made.*, total.targets, total.failed from total left join made on true`;
      if (!row) throw new Error('making a broadcast gave no answer');
      if (row.targets > maxTargets) return { outcome: 'tooLarge', targets: row.targets };
      if (row.id === null) return { outcome: 'taken' };
      return {
        outcome: 'accepted',
        broadcast: broadcastOf(row),
        queued: row.targets - row.failed,
        failed: row.failed,
      };
    },

    async findByIdempotencyKey(
      scope: Scope,
      key: string,
    ): Promise<{ broadcast: Broadcast; requestHash: string } | null> {
      const [row] = await as(scope)`
        select * from broadcasts where coalesce(org_id, '') = ${scope.orgId ?? ''} and idempotency_key = ${key}`;
      return row ? { broadcast: broadcastOf(row), requestHash: row.request_hash } : null;
    },

    async find(scope: Scope, ids: readonly string[]): Promise<Broadcast[]> {
      const rows = await as(
        scope,
      )`select * from broadcasts where id = any(${ids.flatMap((id) => uuidOrNull(id) ?? [])}::uuid[]) ${ofOrganisation(sql, scope)}`;
      return rows.map(broadcastOf);
    },

    /** From the counts that are kept: as cheap for many messages as for few. */
    async progress(scope: Scope, ids: readonly string[]): Promise<Map<string, BroadcastProgress>> {
      const rows = await as(scope)<(BroadcastProgress & { id: string })[]>`
        select broadcast_id as id, sum(count)::integer as targets, ${countOf(sql, 'pending')} as queued,
          ${countOf(sql, 'sent')} as sent, ${countOf(sql, 'delivered')} as delivered, ${countOf(sql, 'failed')} as failed,
          ${countOf(sql, 'expired')} as expired, ${countOf(sql, 'cancelled')} as cancelled
        from broadcast_counts where broadcast_id = any(${[...ids]}::uuid[])
          ${scope.orgId === null ? sql`` : sql`and exists (select from broadcasts where id = broadcast_id and org_id = ${scope.orgId})`}
        group by broadcast_id`;
      return new Map(rows.map(({ id, ...progress }) => [id, progress]));
    },

    /** The messages in these statuses. Each status is read in order for itself, since the index has it so. */
    async page(
      scope: Scope,
      broadcastId: string,
      statuses: readonly MessageStatus[] | undefined,
      range: KeysetRange<number>,
    ): Promise<Message[]> {
      const order = range.backwards ? sql`desc` : sql`asc`;
      const rows = await as(scope)`
        select message.* from unnest(${[...(statuses ?? messageStatuses)]}::text[]) as wanted (status), lateral (
          select * from message_queue where broadcast_id = ${broadcastId} and message_queue.status = wanted.status
            ${ofOrganisation(sql, scope)} ${inRange(sql, range)}
          order by sequence ${order} limit ${range.limit + 1}
        ) as message order by sequence ${order} limit ${range.limit + 1}`;
      return messagesOf(rows);
    },

    async count(scope: Scope, broadcastId: string, statuses: readonly MessageStatus[] | undefined): Promise<number> {
      const [row] = await as(scope)<{ count: number }[]>`
        select count(*) from message_queue where broadcast_id = ${broadcastId} ${ofOrganisation(sql, scope)} ${inStatus(sql, statuses)}`;
      return row?.count ?? 0;
    },

    /** What failed when it was accepted, in order. */
    async failedAtOnce(broadcastId: string, afterSequence: number, limit: number): Promise<Message[]> {
      const rows = await sql`
        select * from message_queue where broadcast_id = ${broadcastId} and status = 'failed' and attempts = 0
          and sequence > ${afterSequence} order by sequence limit ${limit}`;
      return messagesOf(rows);
    },

    /** How each message stands, without what it says. */
    async outcomes(scope: Scope, broadcastId: string): Promise<BroadcastOutcome[]> {
      return await as(scope)<BroadcastOutcome[]>`
        select agent_name as "agentName", status from message_queue where broadcast_id = ${broadcastId} ${ofOrganisation(sql, scope)}`;
    },

    /** How many messages are queued for agents that are not connected. */
    async countUnreachable(scope: Scope, broadcastId: string): Promise<number> {
      const [row] = await as(scope)<{ count: number }[]>`
        select count(*) from message_queue left join agent_connections connection using (agent_id)
        where broadcast_id = ${broadcastId} ${ofOrganisation(sql, scope)} and status = 'pending' and not coalesce(${liveConnection(sql)}, false)`;
      return row?.count ?? 0;
    },
  };
}

export type BroadcastQueries = ReturnType<typeof createBroadcastQueries>;

/** Of a group of `broadcast_counts`. */
export function countOf(sql: Sql, ...statuses: MessageStatus[]): Fragment {
  return sql`coalesce(sum(count) filter (where status = any(${statuses}::text[])), 0)::integer`;
}

function broadcastOf(row: Row): Broadcast {
  const channel = parseCommandChannel(row.channel);
  if (!channel) throw new Error(`broadcast ${row.id} has a channel that this version does not know`);
  return {
    id: row.id,
    orgId: row.org_id,
    kind: channel.kind,
    createdAt: new Date(row.created_at),
    state: row.state,
    abortedReason: row.aborted_reason,
    ratePerSecond: row.rate_per_second,
    abortAtFailurePercent: row.abort_at_failure_percent,
    payloadBytes: row.payload_bytes,
  };
}
