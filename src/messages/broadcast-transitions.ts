import type { Sql } from 'postgres';
import type { Changer } from '../audit/actor.ts';
import { allEntries, auditing } from '../audit/auditing.ts';
import type { Ask } from '../db/database.ts';
import { countOf } from './broadcast-queries.ts';
import type { Message } from './message.ts';
import { messagesOf } from './queries.ts';

/** What is read into memory at once when messages are changed, at most, as payload. */
const maxBytesAtOnce = 16 * 1024 * 1024;
/** Rows of counts that a broadcast may have before they are folded. */
const maxLooseCounts = 20;

/** How many messages with such a payload may be read at once. */
export function batchOf(payloadBytes: number, maxMessages: number): number {
  return Math.max(1, Math.min(maxMessages, Math.floor(maxBytesAtOnce / Math.max(1, payloadBytes))));
}

/**
 * Every change of a broadcast after it was made: guarded UPDATEs that any gateway may make at any time, several at once too.
 * What is not done yet can be seen in the database alone, so that another gateway goes on where one died.
 */
export function createBroadcastTransitions(sql: Sql) {
  return {
    /**
     * Releases of each paced broadcast what its rate has allowed since the last time, a second and a half's worth at most, so
     * that no pause is made up for at once. Gives the agents whose messages may go. The row of the broadcast is locked:
     * one gateway at a time pays out, and writes down until when.
     */
    async release(): Promise<string[]> {
      const rows = await sql<{ uid: string }[]>`
        with paced as materialized (
          select id, rate_per_second as rate, greatest(released_until, now() - interval '1.5 seconds') as since
          from broadcasts where finished_at is null and state = 'running' and rate_per_second is not null
          for update skip locked
        ), allowed as (
          select id, rate, since, greatest(floor(rate * extract(epoch from now() - since)), 0)::integer as number from paced
        ), paid as (
          update broadcasts set released_until = since + number * interval '1 second' / rate
          from allowed where broadcasts.id = allowed.id and number > 0
        )
        update message_queue set held = false from allowed, lateral (
          select message.id from message_queue message
          where message.broadcast_id = allowed.id and message.processed_at is null and message.held
          order by message.sequence limit allowed.number
        ) as next where message_queue.id = next.id and message_queue.processed_at is null returning agent_id as uid`;
      return rows.map(({ uid }) => uid);
    },

    /** running → aborting, where too many of at least `minResults` results are failures. */
    async abort(minResults: number): Promise<void> {
      await sql`
        update broadcasts set state = 'aborting', aborted_reason =
          bad || ' of ' || results || ' results were failures; it was to stop at ' || abort_at_failure_percent || ' %'
        from (
          select broadcast.id, results - good as bad, results from broadcasts broadcast, lateral (
            select ${countOf(sql, 'delivered')} as good,
              ${countOf(sql, 'delivered', 'failed', 'expired')} - broadcast.failed_at_once as results
            from broadcast_counts where broadcast_id = broadcast.id) as counted
          where finished_at is null and state = 'running' and abort_at_failure_percent is not null
        ) as judged
        where broadcasts.id = judged.id and state = 'running'
          and results >= ${minResults} and bad * 100 >= abort_at_failure_percent * results`;
    },

    /** running → cancelling, as the consumer who wants it asks. Whether it was running. */
    async cancel(ask: Ask, by: Changer, id: string): Promise<boolean> {
      const rows = await ask`
        with cancelled as (
          update broadcasts set state = 'cancelling' where id = ${id} and state = 'running' returning id, org_id
        ), audited as (
          ${auditing(
            sql,
            by,
            'broadcast.cancel',
            // In the chain of each organisation that it was sent to.
            sql`select coalesce(sent.org_id, cancelled.org_id), cancelled.id::text, null, '{}'::json
              from cancelled left join ${allEntries(sql)} as sent on sent.subject_id = ${id}::text and action = 'broadcast.send'`,
          )}
        )
        select id from cancelled`;
      return rows.length > 0;
    },

    /** Which broadcasts are being cancelled or aborted, and what each of their messages says, in bytes. */
    async ending(): Promise<{ id: string; payloadBytes: number }[]> {
      return await sql<{ id: string; payloadBytes: number }[]>`
        select id, payload_bytes as "payloadBytes" from broadcasts
        where finished_at is null and state in ('cancelling', 'aborting')`;
    },

    /** pending or sent → cancelled, for some messages of a broadcast that is being cancelled or aborted. */
    async cancelMessages(id: string, limit: number): Promise<Message[]> {
      const rows = await sql`
        update message_queue set status = 'cancelled', processed_at = now(),
          failure = case when message_queue.status = 'sent'
            then 'Its broadcast was stopped after it was sent; the agent may have read it'
            else 'Its broadcast was stopped before it was sent' end
        where id in (
          select message.id from broadcasts, message_queue message
          where broadcasts.id = ${id} and broadcasts.state in ('cancelling', 'aborting') and message.broadcast_id = ${id}
            and message.status in ('pending', 'sent')
          limit ${limit} for update of message skip locked)
        returning *`;
      return messagesOf(rows);
    },

    /** running, cancelling or aborting → finished, cancelled or aborted, where every message is final. */
    async finish(): Promise<void> {
      await sql`
        update broadcasts set finished_at = now(), state =
          case state when 'cancelling' then 'cancelled' when 'aborting' then 'aborted' else 'finished' end
        where finished_at is null and (
          select ${countOf(sql, 'pending', 'sent')} from broadcast_counts where broadcast_id = broadcasts.id) = 0`;
    },

    /** Makes one row of many for each broadcast and status. What changes meanwhile stays beside it. */
    async foldCounts(): Promise<void> {
      await sql`
        with loose as (
          select broadcast_id from broadcast_counts
          where broadcast_id in (select id from broadcasts where finished_at is null)
          group by broadcast_id having count(*) > ${maxLooseCounts}
        ), folded as (
          delete from broadcast_counts where broadcast_id in (select broadcast_id from loose) returning *
        )
        insert into broadcast_counts (broadcast_id, status, count)
        select broadcast_id, status, sum(count) from folded group by broadcast_id, status having sum(count) <> 0`;
    },
  };
}

export type BroadcastTransitions = ReturnType<typeof createBroadcastTransitions>;
