import type { Sql } from 'postgres';
import { commandKinds, shortCommandChannelName } from '../agent-gateway/wire/channels.ts';
import type { Changer } from '../audit/actor.ts';
import { auditing } from '../audit/auditing.ts';
import type { Ask } from '../db/database.ts';
import type { FrameRecord } from './command-link.ts';
import { type Message, messagePriorities, messageTypes } from './message.ts';
import { messageOf, messagesOf } from './queries.ts';

/** A link, by what it owns. */
export interface Owner {
  readonly agentUid: string;
  readonly epoch: number;
}

/** A link that messages are claimed for. */
export interface Claimant extends Owner {
  /** How many messages it takes at most. */
  readonly maxBatch: number;
}

/** A message that a link has claimed, with what is left of its time at some moment after the claim was asked for. */
export interface Claim {
  readonly message: Message;
  readonly expiresInMs: number;
  readonly payloadBytes: number;
  /** Whether it must not be written yet: somebody else had one of those before it, and it goes back. */
  readonly isHeldUp: boolean;
}

export interface Claims {
  /** Of each agent in the order in which they are sent. */
  readonly claims: readonly Claim[];
  /**
   * Agents with messages that somebody else has claimed or changed: an earlier link, while it lost its agent, or a claim of the
   * same link that was given up for lost. Whoever looks again after `recover` and `releaseAll` sees how they stand.
   */
  readonly heldUp: ReadonlySet<string>;
}

/** What became of a claimed message: the epoch is that of the link that claimed it. */
export interface Settlement {
  readonly id: string;
  readonly epoch: number;
  /** That of the message since it was claimed. */
  readonly revision: number;
  /** The frame that was written for it; null where none was. */
  readonly frame: FrameRecord | null;
  /** How long an unread one waits for its next attempt; 0 otherwise. */
  readonly retryDelayMs: number;
  /** Why its agent refused it; null where it did not. */
  readonly refusal: string | null;
}

/**
 * Every change of a message's status: one guarded UPDATE each, that names the status it leaves and, once a link is involved,
 * the epoch it holds and the revision that it claimed. Each gives the messages that it changed, as they stand. A trigger
 * counts and records the change in the same statement (`revision`, `history`).
 */
export function createTransitions(sql: Sql) {
  // Never by the index on `status`, which `is true` keeps out: it holds what is pending for all agents together, and Postgres
  // prefers it where its statistics are from a time when little was.
  const isPending = sql`processed_at is null and (status = 'pending') is true`;
  const isSent = sql`processed_at is null and (status = 'sent') is true`;
  return {
    /** Those of the agents that have messages which are not final. */
    async withOpen(links: readonly Owner[]): Promise<ReadonlySet<string>> {
      const rows = await sql<{ uid: string }[]>`
        select owner.uid from ${owners(sql, links)},
          lateral (select from message_queue where agent_id = owner.uid and processed_at is null limit 1) as open`;
      return new Set(rows.map(({ uid }) => uid));
    },

    /**
     * The agents of these links for whom messages wait, or have been claimed by the link. One look into the index for each
     * agent and question, as far as the first message that answers it.
     */
    async unsettled(links: readonly Owner[]): Promise<{ uid: string; isClaimed: boolean }[]> {
      return await sql<{ uid: string; isClaimed: boolean }[]>`
        select owner.uid, claimed.found is not null as "isClaimed" from ${owners(sql, links)}
          left join lateral (
            select true as found from message_queue
            where agent_id = owner.uid and ${isSent} and message_queue.epoch = owner.epoch limit 1
          ) as claimed on true
          left join lateral (
            select true as found from message_queue where agent_id = owner.uid and ${isSendable(sql, 'message_queue')}
              and (not_before is null or not_before <= now()) limit 1
          ) as awaited on true
        where claimed.found or awaited.found`;
    },

    /**
     * pending → sent, for links that own their agents: what waits for each, the most urgent first and then in order. One that
     * waits for its next attempt, or has been sent and has no outcome yet, holds up those behind it; one whose channel an
     * operator has switched off does not. All of them together have about `maxBytes` at most. What a link has claimed itself
     * must have been settled before it claims again.
     */
    async claim(claimants: readonly Claimant[], maxBytes: number): Promise<Claims> {
      // What another claim takes meanwhile has been seen as pending here, and is not there any more when its turn comes.
      const rows = await sql`
        with waiting as (
          select candidate.*, claimant.epoch as claimed_by
          from unnest(
            ${claimants.map(({ agentUid }) => agentUid)}::text[], ${claimants.map(({ epoch }) => epoch)}::bigint[],
            ${claimants.map(({ maxBatch }) => maxBatch)}::integer[]
          ) as claimant (uid, epoch, most) join agents on agents.uid = claimant.uid::uuid and agents.epoch = claimant.epoch,
          lateral (
            select id, agent_id, priority, sequence, octet_length(payload) as bytes, status = 'sent' as is_sent,
              bool_or(not_before > now() or status = 'sent')
                over (order by priority desc, sequence rows unbounded preceding) as is_stopped
            from message_queue as candidate
            where agent_id = claimant.uid and processed_at is null and (${isSendable(sql, 'candidate')} or status = 'sent')
            order by priority desc, sequence limit claimant.most
          ) as candidate
          where is_sent or is_stopped is not true
        ), wanted as (
          select waiting.*, sum(bytes) over (order by agent_id, priority desc, sequence) - bytes as bytes_before from waiting
        ), claimed as (
          update message_queue message set status = 'sent', attempts = attempts + 1, retry_count = attempts, sent_at = now(),
            not_before = null, epoch = wanted.claimed_by
          from wanted
          where not wanted.is_sent and wanted.bytes_before < ${maxBytes} and message.id = wanted.id
            and (message.status = 'pending') is true and message.expires_at > now()
          returning message.*, extract(epoch from message.expires_at - now())::float8 * 1000 as expires_in_ms,
            octet_length(payload) as payload_bytes
        )
        select wanted.agent_id as wanted_by, claimed.* from wanted left join claimed using (id)
        where wanted.bytes_before < ${maxBytes} order by wanted.agent_id, wanted.priority desc, wanted.sequence`;
      const heldUp = new Set<string>();
      const claims: Claim[] = [];
      for (const row of rows) {
        const [message] = row.status === null ? [] : messagesOf([row]);
        if (!message) heldUp.add(row.wanted_by);
        else
          claims.push({
            message,
            expiresInMs: row.expires_in_ms,
            payloadBytes: row.payload_bytes,
            isHeldUp: heldUp.has(message.agentUid),
          });
      }
      return { claims, heldUp };
    },

    /** sent → pending, for what was claimed and then not written: the attempt does not count. */
    async release(unwritten: readonly Settlement[]): Promise<Message[]> {
      const rows = await sql`
        update message_queue message set ${unclaimed(sql)} from ${settled(sql, unwritten)}
        where ${isStillClaimed(sql)} returning message.*`;
      return messagesOf(rows);
    },

    /** The same for whatever these links have claimed: the answer to the claim was lost, so nothing was written. */
    async releaseAll(links: readonly Owner[]): Promise<Message[]> {
      const rows = await sql`
        update message_queue message set ${unclaimed(sql)} from ${owners(sql, links)}
        where agent_id = owner.uid and ${isSent} and message.epoch = owner.epoch returning message.*`;
      return messagesOf(rows);
    },

    /** sent → delivered, for what the agent has read. */
    async confirm(read: readonly Settlement[]): Promise<Message[]> {
      const rows = await sql`
        update message_queue message set status = 'delivered', delivered_at = now(), processed_at = now(), ${frame(sql)}
        from ${settled(sql, read)} where ${isStillClaimed(sql)} returning message.*`;
      return messagesOf(rows);
    },

    /** sent → failed, for what the agent has read and will not do. */
    async refuse(refused: readonly Settlement[]): Promise<Message[]> {
      const rows = await sql`
        update message_queue message set status = 'failed', processed_at = now(), ${frame(sql)},
          failure = 'The agent refused it: ' || settled.refusal
        from ${settled(sql, refused)} where ${isStillClaimed(sql)} returning message.*`;
      return messagesOf(rows);
    },

    /**
     * sent → pending, failed or expired, for what a link did not confirm. It waits for its next attempt, unless another link
     * owns the agent by now.
     */
    async giveUp(unread: readonly Settlement[]): Promise<Message[]> {
      const rows = await sql`
        update message_queue message set ${afterNoConfirmation(sql)}, ${frame(sql)},
          not_before = (
            select now() + settled.retry_delay_ms * interval '1 millisecond' from agents
            where agents.uid = message.agent_id::uuid and agents.epoch = settled.epoch)
        from ${settled(sql, unread)} where ${isStillClaimed(sql)} returning message.*`;
      return messagesOf(rows);
    },

    /**
     * The same for what earlier links of these agents left behind: theirs died without a word. What waits for its next
     * attempt waits no longer: the link is another one. What was sent less than `graceMs` ago is left alone, since the gateway
     * of the earlier link may be about to confirm it: its agents are `awaited`.
     */
    async recover(
      links: readonly Owner[],
      graceMs: number,
    ): Promise<{ readonly recovered: Message[]; readonly awaited: ReadonlySet<string> }> {
      const uids = links.map(({ agentUid }) => agentUid);
      const isRecent = sql`message.sent_at > now() - ${graceMs} * interval '1 millisecond'`;
      const isLeft = sql`agent_id = owner.uid and ${isSent} and message.epoch < owner.epoch`;
      const rows = await sql`
        with hurried as (
          update message_queue set not_before = null
          where agent_id = any(${uids}::text[]) and ${isPending} and not_before is not null
        ), recovered as (
          update message_queue message set ${afterNoConfirmation(sql)} from ${owners(sql, links)}
          where ${isLeft} and (${isRecent}) is not true returning message.*
        )
        select false as is_awaited, recovered.* from recovered
        union all
        select true, message.* from message_queue message, ${owners(sql, links)} where ${isLeft} and ${isRecent}`;
      const [awaited, recovered] = [true, false].map((isAwaited) =>
        messagesOf(rows.filter((row) => row.is_awaited === isAwaited)),
      );
      return { recovered: recovered ?? [], awaited: new Set(awaited?.map(({ agentUid }) => agentUid)) };
    },

    /** pending → expired; and what was sent by a gateway that died, once nobody can confirm it any more. */
    async expire(limit: number): Promise<Message[]> {
      const rows = await sql`
        update message_queue set status = 'expired', processed_at = now(), failure = 'It could not be delivered in time'
        where id in (
          select id from message_queue where processed_at is null and expires_at <= now()
            and expires_at <= now() - case when status = 'sent' then interval '1 minute' else interval '0' end
          order by expires_at limit ${limit} for update skip locked)
        returning *`;
      return messagesOf(rows);
    },

    /** pending or sent → cancelled, as the consumer who wants it asks. */
    async cancel(ask: Ask, by: Changer, id: string): Promise<Message | null> {
      const [row] = await ask`
        with cancelled as (
          update message_queue set failure = case when status = 'sent'
            then 'Cancelled after it was sent; the agent may have read it' else 'Cancelled before it was sent' end,
            status = 'cancelled', processed_at = now()
          where id = ${id} and processed_at is null returning *
        ), audited as (
          ${auditing(
            sql,
            by,
            'message.cancel',
            sql`select org_id, id::text, agent_name, json_build_object('agentUid', agent_id) from cancelled`,
          )}
        )
        select * from cancelled`;
      return row ? messageOf(row) : null;
    },
  };
}

const knownChannels = commandKinds.map(shortCommandChannelName);

export type Transitions = ReturnType<typeof createTransitions>;

function owners(sql: Sql, links: readonly Owner[]) {
  return sql`unnest(
    ${links.map(({ agentUid }) => agentUid)}::text[], ${links.map(({ epoch }) => epoch)}::bigint[]) as owner (uid, epoch)`;
}

function settled(sql: Sql, settlements: readonly Settlement[]) {
  return sql`unnest(
    ${settlements.map(({ id }) => id)}::uuid[], ${settlements.map(({ epoch }) => epoch)}::bigint[],
    ${settlements.map(({ revision }) => revision)}::integer[],
    ${settlements.map(({ retryDelayMs }) => retryDelayMs)}::bigint[], ${settlements.map(({ refusal }) => refusal)}::text[],
    ${settlements.map((each) => each.frame?.encryptedPayload ?? null)}::text[],
    ${settlements.map((each) => each.frame?.nonce ?? null)}::text[],
    ${settlements.map((each) => each.frame?.signature ?? null)}::text[]
  ) as settled (id, epoch, revision, retry_delay_ms, refusal, body, nonce, signature)`;
}

function isStillClaimed(sql: Sql) {
  return sql`message.id = settled.id and (message.status = 'sent') is true and message.epoch = settled.epoch
    and message.revision = settled.revision`;
}

/** The frame that was written, recorded with what became of it. */
function frame(sql: Sql) {
  return sql`encrypted_payload = coalesce(settled.body, message.encrypted_payload),
    nonce = coalesce(settled.nonce, message.nonce), signature = coalesce(settled.signature, message.signature)`;
}

/** What becomes of a message that was claimed and not written. */
function unclaimed(sql: Sql) {
  return sql`status = 'pending', attempts = attempts - 1, retry_count = greatest(attempts - 2, 0),
    sent_at = case when attempts > 1 then sent_at end`;
}

/** What becomes of a message that was written and not confirmed. In an UPDATE the right-hand sides see the old row. */
function afterNoConfirmation(sql: Sql) {
  return sql`
    status = case when expires_at <= now() then 'expired' when attempts > max_retries then 'failed' else 'pending' end,
    processed_at = case when expires_at <= now() or attempts > max_retries then now() end,
    failure = case when expires_at <= now() then 'It was sent and not confirmed in time'
      when attempts > max_retries then 'It was sent ' || attempts || ' times and never confirmed' end`;
}

/**
 * Whether a message waits and may be sent: a channel, which is stored by the agent's uid, may be switched off. What only a newer
 * version knows is left to it.
 */
function isSendable(sql: Sql, table: 'candidate' | 'message_queue') {
  return sql`processed_at is null and (status = 'pending') is true and not held and expires_at > now()
    and channel = any(${knownChannels}::text[]) and message_type = any(${[...messageTypes]}::text[])
    and priority < ${messagePriorities.length} and not exists (
    select from communication_channels closed where closed.agent_id = ${sql(table)}.agent_id and not closed.is_active
      and closed.channel_name = 'backend.' || ${sql(table)}.agent_id || substr(${sql(table)}.channel, 8))`;
}
