import { createHash } from 'node:crypto';
import type { Fragment, Row, Sql } from 'postgres';
import type { Scope } from '../access/scope.ts';
import { parseCommandChannel, shortCommandChannelName } from '../agent-gateway/wire/channels.ts';
import type { Database } from '../db/database.ts';
import { uuidOrNull } from '../fleet/queries.ts';
import type { KeysetRange } from '../paging.ts';
import {
  type Message,
  type MessageStatus,
  messagePriorities,
  messageStatuses,
  messageTypes,
  type Transition,
} from './message.ts';

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

/** What is put on record of a message that was sent: of what it says, size and hash alone. */
export function sentDetails({
  kind,
  type,
  payloadText,
  idempotencyKey,
}: NewMessage): Readonly<Record<string, unknown>> {
  return {
    ...{ channel: shortCommandChannelName(kind), type, idempotencyKey: idempotencyKey ?? undefined },
    payloadBytes: Buffer.byteLength(payloadText),
    payloadSha256: createHash('sha256').update(payloadText).digest('hex'),
  };
}

export const handoffFailure =
  'This agent speaks the handoff dialect of v1: nobody but the agent itself can make the key that a command must be sealed with';
export const closedFailure = 'An operator has switched this channel of the agent off';
export const fullFailure = 'Too many messages wait for this agent';

/** The SQL by which messages are read. How they are accepted is in `acceptance-queries.ts`, what happens later in `transitions.ts`. */
export function createMessageQueries({ sql, as }: Pick<Database, 'sql' | 'as'>) {
  return {
    async find(scope: Scope, id: string): Promise<Message | null> {
      const [row] = await as(scope)`
        select * from message_queue where id = ${uuidOrNull(id)} ${inScope(sql, scope)}`;
      return row ? messageOf(row) : null;
    },

    async pageByAgent(
      scope: Scope,
      agentUids: readonly string[],
      statuses: readonly MessageStatus[] | undefined,
      range: KeysetRange<number>,
    ): Promise<Message[]> {
      const order = range.backwards ? sql`desc` : sql`asc`;
      const rows = await as(scope)`
        select message.* from unnest(${[...agentUids]}::text[]) as wanted (uid), lateral (
          select * from message_queue where agent_id = wanted.uid ${inScope(sql, scope)} ${inStatus(sql, statuses)} ${inRange(sql, range)}
          order by sequence ${order} limit ${range.limit + 1}
        ) as message order by sequence ${order}`;
      return messagesOf(rows);
    },

    async countByAgent(
      scope: Scope,
      agentUids: readonly string[],
      statuses: readonly MessageStatus[] | undefined,
    ): Promise<Map<string, number>> {
      const rows = await as(scope)<{ uid: string; count: number }[]>`
        select agent_id as uid, count(*) from message_queue
        where agent_id = any(${[...agentUids]}::text[]) ${inScope(sql, scope)} ${inStatus(sql, statuses)} group by agent_id`;
      return new Map(rows.map((row) => [row.uid, row.count]));
    },
  };
}

export type MessageQueries = ReturnType<typeof createMessageQueries>;

/** For tables with an `org_id` that no other table of the statement has. */
export function inScope(sql: Sql, scope: Scope): Fragment {
  return scope.orgId === null ? sql`` : sql`and org_id = ${scope.orgId}`;
}

export function inStatus(sql: Sql, statuses: readonly MessageStatus[] | undefined): Fragment {
  return statuses === undefined ? sql`` : sql`and status = any(${[...statuses]}::text[])`;
}

export function inRange(sql: Sql, range: KeysetRange<number>): Fragment {
  return sql`
    ${range.after === null ? sql`` : sql`and sequence > ${range.after}`}
    ${range.before === null ? sql`` : sql`and sequence < ${range.before}`}`;
}

/**
 * Those that this version knows: while gateways are brought up to a newer version one by one, these may write channels,
 * priorities, types and statuses that those that are left cannot read. They leave such messages to the newer ones.
 */
export function messagesOf(rows: readonly Row[]): Message[] {
  return rows.flatMap((row) => messageOf(row) ?? []);
}

/** Null for what another version has written and this one does not know. */
export function messageOf(row: Row): Message | null {
  const channel = parseCommandChannel(row.channel);
  const priority = messagePriorities[row.priority];
  const type = messageTypes.find((known) => known === row.message_type);
  const status = messageStatuses.find((known) => known === row.status);
  if (!channel || !priority || !type || !status) return null;
  return {
    id: row.id,
    sequence: row.sequence,
    agentUid: row.agent_id,
    agentName: row.agent_name,
    orgId: row.org_id,
    kind: channel.kind,
    type,
    priority,
    status,
    payload: JSON.parse(row.payload),
    attempts: row.attempts,
    maxRetries: row.max_retries,
    createdAt: new Date(row.created_at),
    sentAt: dateOrNull(row.sent_at),
    deliveredAt: dateOrNull(row.delivered_at),
    expiresAt: new Date(row.expires_at),
    failure: row.failure,
    broadcastId: row.broadcast_id,
    traceparent: row.traceparent,
    revision: row.revision,
    history: row.history.flatMap(transitionOf),
  };
}

function transitionOf([revision, status, atMs, attempts, failure]: [
  number,
  string,
  number,
  number,
  string | null,
]): Transition[] {
  const known = messageStatuses.find((each) => each === status);
  return known ? [{ revision, status: known, at: new Date(atMs), attempts, failure }] : [];
}

function dateOrNull(text: string | null): Date | null {
  return text === null ? null : new Date(text);
}
