import type { Fragment, Row, Sql, TransactionSql } from 'postgres';
import type { Scope } from '../access/scope.ts';
import { parseCommandChannel, shortCommandChannelName } from '../agent-gateway/wire/channels.ts';
import { bestFirst, inScope, isNamed, uuidOrNull } from '../fleet/queries.ts';
import type { KeysetRange } from '../paging.ts';
import { type Message, type MessageStatus, messagePriorities, type Transition } from './message.ts';

/** A message about to be accepted. */
export interface NewMessage {
  readonly kind: Message['kind'];
  readonly type: Message['type'];
  readonly priorityRank: number;
  readonly payloadText: string;
  readonly maxRetries: number;
  readonly ttlMs: number;
  readonly idempotencyKey: string | null;
  readonly requestHash: string;
}

/** What came of a message that was to be accepted. `isKnown`: its idempotency key is taken in the agent's organisation. */
export type Acceptance =
  | { readonly accepted: Message }
  | { readonly isKnown: true; readonly orgId: string; readonly agentUid: string }
  | { readonly refused: AcceptanceRefusal };

type AcceptanceRefusal = 'AGENT_NOT_FOUND' | 'AGENT_NAME_AMBIGUOUS' | 'AGENT_REVOKED' | 'CHANNEL_CLOSED' | 'QUEUE_FULL';

/**
 * Below the limit by this much, nobody waits: all gateways together have fewer statements under way that accept messages for
 * one agent between its look at the queue and its lock.
 */
const crowdedMargin = 200;
/** The first key of the advisory locks on agents' queues; the second is a hash of the uid. */
const queueLock = 0x51756575;

export const handoffFailure =
  'This agent speaks the handoff dialect of v1: nobody but the agent itself can make the key that a command must be sealed with';
export const closedFailure = 'An operator has switched this channel of the agent off';
export const fullFailure = 'Too many messages wait for this agent';

/** The SQL by which messages are accepted and read. What happens to them later is in `transitions.ts`. */
export function createMessageQueries(sql: Sql, defaultOrg: string) {
  /** The three columns of the frame are empty until one is written. */
  const newColumns = sql`agent_id, agent_name, org_id, channel, message_type, payload, encrypted_payload, nonce, signature,
    priority, max_retries, expires_at, idempotency_key, request_hash, broadcast_id, status, failure, processed_at`;

  function values(
    message: NewMessage,
    agent: Fragment,
    broadcastId: Fragment,
    idempotencyKey: string | null,
  ): Fragment {
    return sql`${agent}, ${shortCommandChannelName(message.kind)}, ${message.type}, ${message.payloadText}, '', '', '',
      ${message.priorityRank}::smallint, ${message.maxRetries}::integer,
      now() + ${message.ttlMs}::float8 * interval '1 millisecond', ${idempotencyKey}, ${message.requestHash}, ${broadcastId}`;
  }

  /** Why a message for `agent` fails at once, or null. */
  function failureAtOnce(): Fragment {
    return sql`case when agent.dialect = 'handoff' then ${handoffFailure} end`;
  }

  function channelIsClosed(kind: Message['kind']): Fragment {
    return sql`exists (
      select from communication_channels channel where channel.agent_id = agent.uid::text and not channel.is_active
        and channel.channel_name = 'backend.' || agent.uid || ${`.${kind}`})`;
  }

  function openCount(limit: number): Fragment {
    return sql`(select count(*) from (
      select from message_queue waiting where waiting.agent_id = agent.uid::text and waiting.processed_at is null
      limit ${limit}) as counted)`;
  }

  async function insert(
    client: Sql | TransactionSql,
    scope: Scope,
    agentRef: string,
    message: NewMessage,
    maxOpen: number,
    isCrowded: Fragment,
  ): Promise<Acceptance | 'crowded'> {
    const agent = sql`agent.uid::text, agent.name, agent.org_id`;
    const [row] = await client`
      with named as (
        select agent.uid, agent.name, agent.org_id, agent.enrollment, agent.dialect, count(*) over () as matches,
          row_number() over (order by ${bestFirst(sql, agentRef, defaultOrg)}) as place
        from agents agent where ${isNamed(sql, agentRef)} ${inScope(sql, scope)}
      ), verdict as (
        select agent.*, ${failureAtOnce()} as failure, case
          when matches > 1 and agent.uid is distinct from ${uuidOrNull(agentRef)} and agent.org_id <> ${defaultOrg}
            then 'AGENT_NAME_AMBIGUOUS'
          when exists (select from message_queue earlier
            where earlier.org_id = agent.org_id and earlier.idempotency_key = ${message.idempotencyKey}) then 'known'
          when agent.enrollment = 'revoked' then 'AGENT_REVOKED'
          when ${channelIsClosed(message.kind)} then 'CHANNEL_CLOSED'
          when open.count >= ${maxOpen} then 'QUEUE_FULL'
          when ${isCrowded} then 'crowded'
        end as refusal
        from named agent, lateral ${openCount(maxOpen)} as open where place = 1
      ), accepted as (
        insert into message_queue (${newColumns})
        select ${values(message, agent, sql`null::uuid`, message.idempotencyKey)},
          case when failure is null then 'pending' else 'failed' end, failure, case when failure is null then null else now() end
        from verdict agent where refusal is null
        on conflict (org_id, idempotency_key) where idempotency_key is not null do nothing
        returning *
      )
      select accepted.*, refusal, verdict.org_id as agent_org_id, verdict.uid as agent_uid from verdict left join accepted on true`;
    if (!row) return { refused: 'AGENT_NOT_FOUND' };
    if (row.refusal === 'crowded') return 'crowded';
    if (row.refusal === 'known' || (row.refusal === null && row.id === null))
      return { isKnown: true, orgId: row.agent_org_id, agentUid: row.agent_uid };
    return row.refusal === null ? { accepted: messageOf(row) } : { refused: row.refusal };
  }

  return {
    /**
     * Accepts a message for the agent that `agentRef` means, in one statement; or tells why not. `maxOpen` messages of one
     * agent may be open, and not one more: near the limit senders queue up, one agent's only behind each other.
     */
    async accept(scope: Scope, agentRef: string, message: NewMessage, maxOpen: number): Promise<Acceptance> {
      const isCrowded = sql`(open.count >= ${maxOpen - crowdedMargin}
        or not pg_try_advisory_xact_lock_shared(${queueLock}, hashtext(agent.uid::text)))`;
      const ready = await insert(sql, scope, agentRef, message, maxOpen, isCrowded);
      if (ready !== 'crowded') return ready;
      return sql.begin(async (tx) => {
        await tx`
          select pg_advisory_xact_lock(${queueLock}, hashtext(uid::text)) from (
            select uid from agents agent where ${isNamed(sql, agentRef)} ${inScope(sql, scope)}
            order by ${bestFirst(sql, agentRef, defaultOrg)} limit 1) as agent`;
        // A statement of its own: it sees what those before it have committed.
        const alone = await insert(tx, scope, agentRef, message, maxOpen, sql`false`);
        if (alone === 'crowded') throw new Error('a queue is crowded although its lock is held');
        return alone;
      });
    },

    async findByIdempotencyKey(orgId: string, key: string): Promise<{ message: Message; requestHash: string } | null> {
      const [row] = await sql`select * from message_queue where org_id = ${orgId} and idempotency_key = ${key}`;
      return row ? { message: messageOf(row), requestHash: row.request_hash } : null;
    },

    async find(scope: Scope, id: string): Promise<Message | null> {
      const [row] = await sql`
        select * from message_queue where id = ${uuidOrNull(id)}
        ${scope.orgId === null ? sql`` : sql`and org_id = ${scope.orgId}`}`;
      return row ? messageOf(row) : null;
    },

    async pageByAgent(
      agentUids: readonly string[],
      statuses: readonly MessageStatus[] | undefined,
      range: KeysetRange<number>,
    ): Promise<Message[]> {
      const order = range.backwards ? sql`desc` : sql`asc`;
      const rows = await sql`
        select message.* from unnest(${[...agentUids]}::text[]) as wanted (uid), lateral (
          select * from message_queue where agent_id = wanted.uid ${inStatus(sql, statuses)} ${inRange(sql, range)}
          order by sequence ${order} limit ${range.limit + 1}
        ) as message order by sequence ${order}`;
      return rows.map(messageOf);
    },

    async countByAgent(
      agentUids: readonly string[],
      statuses: readonly MessageStatus[] | undefined,
    ): Promise<Map<string, number>> {
      const rows = await sql<{ uid: string; count: number }[]>`
        select agent_id as uid, count(*) from message_queue
        where agent_id = any(${[...agentUids]}::text[]) ${inStatus(sql, statuses)} group by agent_id`;
      return new Map(rows.map((row) => [row.uid, row.count]));
    },
  };
}

export type MessageQueries = ReturnType<typeof createMessageQueries>;

export function inStatus(sql: Sql, statuses: readonly MessageStatus[] | undefined): Fragment {
  return statuses === undefined ? sql`` : sql`and status = any(${[...statuses]}::text[])`;
}

export function inRange(sql: Sql, range: KeysetRange<number>): Fragment {
  return sql`
    ${range.after === null ? sql`` : sql`and sequence > ${range.after}`}
    ${range.before === null ? sql`` : sql`and sequence < ${range.before}`}`;
}

export function messageOf(row: Row): Message {
  const channel = parseCommandChannel(row.channel);
  const priority = messagePriorities[row.priority];
  if (!channel || !priority)
    throw new Error(`message ${row.id} has a channel or priority that this version does not know`);
  return {
    id: row.id,
    sequence: row.sequence,
    agentUid: row.agent_id,
    agentName: row.agent_name,
    orgId: row.org_id,
    kind: channel.kind,
    type: row.message_type,
    priority,
    status: row.status,
    payload: JSON.parse(row.payload),
    attempts: row.attempts,
    maxRetries: row.max_retries,
    createdAt: new Date(row.created_at),
    sentAt: dateOrNull(row.sent_at),
    deliveredAt: dateOrNull(row.delivered_at),
    expiresAt: new Date(row.expires_at),
    failure: row.failure,
    broadcastId: row.broadcast_id,
    revision: row.revision,
    history: row.history.map(transitionOf),
  };
}

function transitionOf([revision, status, atMs, attempts, failure]: [
  number,
  MessageStatus,
  number,
  number,
  string | null,
]): Transition {
  return { revision, status, at: new Date(atMs), attempts, failure };
}

function dateOrNull(text: string | null): Date | null {
  return text === null ? null : new Date(text);
}
