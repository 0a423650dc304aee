import type { Scope } from '../access/scope.ts';
import type { Database } from '../db/database.ts';
import { createBroadcastQueries } from './broadcast-queries.ts';
import type { Message, MessageStatus } from './message.ts';
import type { MessageSubject } from './messages.ts';
import { inScope, messagesOf } from './queries.ts';

/** What a follower has been told of one message. `follower` is a number that comes back with what is news to it. */
export interface Told {
  readonly follower: number;
  readonly id: string;
  readonly revision: number;
}

/** The place from which an agent's messages may be news to a follower. */
export interface Place {
  readonly follower: number;
  readonly agentUid: string;
  readonly after: number;
}

const maxNewOfAgent = 500;
const openStatuses: readonly MessageStatus[] = ['pending', 'sent'];

/** The SQL by which messages are followed: how they stand, and what nobody has told of. */
export function createUpdateQueries(database: Pick<Database, 'sql' | 'as'>) {
  const { sql } = database;
  const broadcasts = createBroadcastQueries(database);

  return {
    async now(): Promise<Date> {
      const [row] = await sql<{ now: string }[]>`select now()`;
      if (!row) throw new Error('the database does not know the time');
      return new Date(row.now);
    },

    /** Of every organisation, for this gateway itself. */
    async findAll(ids: readonly string[]): Promise<Message[]> {
      const rows = await sql`select * from message_queue where id = any(${[...ids]}::uuid[])`;
      return messagesOf(rows);
    },

    /** The last sequence of an agent's messages that were accepted before `date`; 0 where there is none. */
    async lastBefore(agentUid: string, date: Date): Promise<number> {
      const [row] = await sql<{ sequence: number }[]>`
        select sequence from message_queue where agent_id = ${agentUid} and created_at < ${date.toISOString()}::timestamptz
        order by sequence desc limit 1`;
      return row?.sequence ?? 0;
    },

    /** An agent's messages that were accepted since, whatever their status, the latest ones. */
    async latest(scope: Scope, agentUid: string, since: Date, limit: number): Promise<Message[]> {
      const rows = await database.as(scope)`
        select * from (
          select * from message_queue where agent_id = ${agentUid} ${inScope(sql, scope)} order by sequence desc limit ${limit}
        ) as latest where created_at >= ${since.toISOString()}::timestamptz`;
      return messagesOf(rows);
    },

    /** A subject's messages that are not final, in order, beyond a sequence; a single message whatever its status. */
    async present(scope: Scope, subject: MessageSubject, after: number, limit: number): Promise<Message[]> {
      if ('broadcastId' in subject)
        return broadcasts.page(scope, subject.broadcastId, openStatuses, {
          ...{ after, before: null, backwards: false },
          // One more is read than is asked for.
          limit: limit - 1,
        });
      const isWanted =
        'messageId' in subject
          ? sql`id = ${subject.messageId}`
          : sql`agent_id = ${subject.agentUid} and processed_at is null`;
      const rows = await database.as(scope)`
        select * from message_queue where ${isWanted} ${inScope(sql, scope)} and sequence > ${after} order by sequence limit ${limit}`;
      return messagesOf(rows);
    },

    /** What has changed beyond what followers were told, and what is new in their places. */
    async news(told: readonly Told[], places: readonly Place[]): Promise<{ follower: number; message: Message }[]> {
      const rows = await sql`
        with told as (
          select * from unnest(
            ${told.map(({ follower }) => follower)}::integer[], ${told.map(({ id }) => id)}::uuid[],
            ${told.map(({ revision }) => revision)}::integer[]) as told (follower, id, revision)
        ), place as (
          select * from unnest(
            ${places.map(({ follower }) => follower)}::integer[], ${places.map(({ agentUid }) => agentUid)}::text[],
            ${places.map(({ after }) => after)}::bigint[]) as place (follower, uid, after)
        )
        select told.follower, message.* from told
          join message_queue message on message.id = told.id and message.revision > told.revision
        union all
        select place.follower, message.* from place, lateral (
          select * from message_queue where agent_id = place.uid and sequence > place.after
          order by sequence limit ${maxNewOfAgent}
        ) as message
        where not exists (select from told where told.follower = place.follower and told.id = message.id)`;
      return rows.flatMap((row) => messagesOf([row]).map((message) => ({ follower: row.follower, message })));
    },
  };
}

export type UpdateQueries = ReturnType<typeof createUpdateQueries>;
