import type { Sql } from 'postgres';

/** Takes final messages away once they are old, a bounded number at a time; several gateways may do so at once. */
export interface Retention {
  /** Deletes some of what is too old. Whether there may be more. */
  clearAway(): Promise<boolean>;
}

const maxMessagesAtOnce = 1_000;
const maxBroadcastsAtOnce = 100;

/** A message leaves `retentionMs` after it became final, a broadcast when it has been over for so long and no message is left. */
export function createRetention(sql: Sql, retentionMs: number): Retention {
  const isOld = (column: string) => sql`${sql(column)} < now() - ${retentionMs}::float8 * interval '1 millisecond'`;
  return {
    async clearAway() {
      const messages = await sql`
        delete from message_queue where id in (
          select id from message_queue where ${isOld('processed_at')} and status not in ('pending', 'sent')
          order by processed_at limit ${maxMessagesAtOnce} for update skip locked)`;
      const broadcasts = await sql`
        with gone as (
          delete from broadcasts where id in (
            select id from broadcasts where ${isOld('finished_at')}
              and not exists (select from message_queue where broadcast_id = broadcasts.id)
            order by finished_at limit ${maxBroadcastsAtOnce} for update skip locked)
          returning id
        ), forgotten as (
          delete from broadcast_counts where broadcast_id in (select id from gone)
        )
        select from gone`;
      return messages.count === maxMessagesAtOnce || broadcasts.count === maxBroadcastsAtOnce;
    },
  };
}
