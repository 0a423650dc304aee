import type { Sql } from 'postgres';
import type { Message } from './message.ts';
import { messageOf } from './queries.ts';

/** A frame that is about to be written for a message. */
export interface SealedMessage {
  readonly id: string;
  readonly epoch: number;
  readonly encryptedPayload: string;
  readonly nonce: string;
  readonly signature: string;
}

/** A claimed message: the epoch is that of the link that claimed it. */
export interface ClaimedMessage {
  readonly id: string;
  readonly epoch: number;
  /** How long an unread one waits for its next attempt; 0 otherwise. */
  readonly retryDelayMs: number;
}

/**
 * Every change of a message's status: one guarded UPDATE each, that names the status it leaves and, once a link is involved,
 * the epoch it holds. Each gives the messages that it changed, as they stand.
 */
export function createTransitions(sql: Sql) {
  return {
    /**
     * Messages that wait for these agents, the most urgent first and then in order, `limit` for each agent at most. One
     * that waits for its next attempt holds up those behind it; one whose channel an operator has switched off does not.
     */
    async waiting(agentUids: readonly string[], limit: number): Promise<Message[]> {
      const rows = await sql`
        select message.* from unnest(${[...agentUids]}::text[]) as wanted (uid), lateral (
          select * from message_queue as candidate where agent_id = wanted.uid and status = 'pending' and expires_at > now()
            and (not_before is null or not_before <= now()) and not exists (
              select from message_queue as held where held.agent_id = wanted.uid and held.status = 'pending'
                and held.not_before > now() and held.expires_at > now()
                and (held.priority, -held.sequence) > (candidate.priority, -candidate.sequence))
            and ${channelIsOpen(sql, 'candidate')}
          order by priority desc, sequence limit ${limit}
        ) as message order by priority desc, sequence`;
      return rows.map(messageOf);
    },

    /** Which of these agents messages wait for. */
    async awaited(agentUids: readonly string[]): Promise<string[]> {
      const rows = await sql<{ uid: string }[]>`
        select distinct agent_id as uid from message_queue
        where agent_id = any(${[...agentUids]}::text[]) and status = 'pending' and expires_at > now()
          and (not_before is null or not_before <= now()) and ${channelIsOpen(sql, 'message_queue')}`;
      return rows.map((row) => row.uid);
    },

    /** pending → sent, for a link that still owns its agent, right before its frame is written. */
    async claim(sealed: readonly SealedMessage[]): Promise<Message[]> {
      const rows = await sql`
        update message_queue message set status = 'sent', attempts = attempts + 1, retry_count = attempts, sent_at = now(),
          not_before = null, epoch = claimed.epoch, encrypted_payload = claimed.body, nonce = claimed.nonce,
          signature = claimed.signature
        from unnest(
          ${sealed.map(({ id }) => id)}::uuid[], ${sealed.map(({ epoch }) => epoch)}::bigint[],
          ${sealed.map(({ encryptedPayload }) => encryptedPayload)}::text[], ${sealed.map(({ nonce }) => nonce)}::text[],
          ${sealed.map(({ signature }) => signature)}::text[]
        ) as claimed (id, epoch, body, nonce, signature)
        where message.id = claimed.id and message.status = 'pending' and message.expires_at > now() and exists (
          select from agents where agents.uid::text = message.agent_id and agents.epoch = claimed.epoch)
        returning message.*`;
      return rows.map(messageOf);
    },

    /** sent → pending, for what was claimed and then not written: the attempt does not count. */
    async release(unwritten: readonly ClaimedMessage[]): Promise<Message[]> {
      const rows = await sql`
        update message_queue message set status = 'pending', attempts = attempts - 1,
          retry_count = greatest(attempts - 2, 0), sent_at = case when attempts > 1 then sent_at end
        from ${claimedBy(sql, unwritten)} where ${isStillClaimed(sql)} returning message.*`;
      return rows.map(messageOf);
    },

    /** sent → delivered, for what the agent has read. */
    async confirm(read: readonly ClaimedMessage[]): Promise<Message[]> {
      const rows = await sql`
        update message_queue message set status = 'delivered', delivered_at = now(), processed_at = now()
        from ${claimedBy(sql, read)} where ${isStillClaimed(sql)} returning message.*`;
      return rows.map(messageOf);
    },

    /** sent → pending, failed or expired, for what a link did not confirm. */
    async giveUp(unread: readonly ClaimedMessage[]): Promise<Message[]> {
      const rows = await sql`
        update message_queue message set ${afterNoConfirmation(sql)},
          not_before = now() + claimed.retry_delay_ms * interval '1 millisecond'
        from ${claimedBy(sql, unread)} where ${isStillClaimed(sql)} returning message.*`;
      return rows.map(messageOf);
    },

    /**
     * The same for what earlier links of these agents left behind: theirs died without a word. What waits for its next
     * attempt waits no longer: the link is another one.
     */
    async recover(links: readonly { readonly agentUid: string; readonly epoch: number }[]): Promise<Message[]> {
      const uids = links.map(({ agentUid }) => agentUid);
      const rows = await sql`
        with hurried as (
          update message_queue set not_before = null
          where agent_id = any(${uids}::text[]) and status = 'pending' and not_before is not null
        )
        update message_queue message set ${afterNoConfirmation(sql)}
        from unnest(${uids}::text[], ${links.map(({ epoch }) => epoch)}::bigint[]) as owner (uid, epoch)
        where agent_id = owner.uid and status = 'sent' and message.epoch < owner.epoch returning message.*`;
      return rows.map(messageOf);
    },

    /** pending → expired; and what was sent by a gateway that died, once nobody can confirm it any more. */
    async expire(limit: number): Promise<Message[]> {
      const rows = await sql`
        update message_queue set status = 'expired', processed_at = now(), failure = 'It could not be delivered in time'
        where id in (
          select id from message_queue where status in ('pending', 'sent') and expires_at <= now()
            and expires_at <= now() - case when status = 'sent' then interval '1 minute' else interval '0' end
          order by expires_at limit ${limit} for update skip locked)
        returning *`;
      return rows.map(messageOf);
    },

    /** pending or sent → cancelled. */
    async cancel(id: string): Promise<Message | null> {
      const [row] = await sql`
        update message_queue set failure = case when status = 'sent'
          then 'Cancelled after it was sent; the agent may have read it' else 'Cancelled before it was sent' end,
          status = 'cancelled', processed_at = now()
        where id = ${id} and status in ('pending', 'sent') returning *`;
      return row ? messageOf(row) : null;
    },
  };
}

export type Transitions = ReturnType<typeof createTransitions>;

function claimedBy(sql: Sql, claimed: readonly ClaimedMessage[]) {
  return sql`unnest(
    ${claimed.map(({ id }) => id)}::uuid[], ${claimed.map(({ epoch }) => epoch)}::bigint[],
    ${claimed.map(({ retryDelayMs }) => retryDelayMs)}::bigint[]) as claimed (id, epoch, retry_delay_ms)`;
}

function isStillClaimed(sql: Sql) {
  return sql`message.id = claimed.id and message.status = 'sent' and message.epoch = claimed.epoch`;
}

/** What becomes of a message that was written and not confirmed. In an UPDATE the right-hand sides see the old row. */
function afterNoConfirmation(sql: Sql) {
  return sql`
    status = case when expires_at <= now() then 'expired' when attempts > max_retries then 'failed' else 'pending' end,
    processed_at = case when expires_at <= now() or attempts > max_retries then now() end,
    failure = case when expires_at <= now() then 'It was sent and not confirmed in time'
      when attempts > max_retries then 'It was sent ' || attempts || ' times and never confirmed' end`;
}

/** Whether a waiting message may be sent as far as its channel goes, which is stored by the agent's uid. */
function channelIsOpen(sql: Sql, table: 'candidate' | 'message_queue') {
  return sql`not exists (
    select from communication_channels closed where closed.agent_id = ${sql(table)}.agent_id and not closed.is_active
      and closed.channel_name = 'backend.' || ${sql(table)}.agent_id || substr(${sql(table)}.channel, 8))`;
}
