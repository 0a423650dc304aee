import type { Fragment, Row } from 'postgres';
import type { Scope } from '../access/scope.ts';
import { shortCommandChannelName } from '../agent-gateway/wire/channels.ts';
import type { Changer } from '../audit/actor.ts';
import { auditingEach } from '../audit/auditing.ts';
import type { Ask, Database } from '../db/database.ts';
import { uuidOrNull } from '../fleet/queries.ts';
import type { Message } from './message.ts';
import { handoffFailure, messageOf, type NewMessage, sentDetails } from './queries.ts';

/** A message that a consumer asks to be sent. */
export interface AcceptanceRequest {
  readonly by: Changer;
  readonly agentRef: string;
  readonly message: NewMessage;
}

/** What came of a request. `isKnown`: its idempotency key is taken in the agent's organisation. */
export type Acceptance =
  | { readonly accepted: Message }
  | { readonly isKnown: true; readonly orgId: string; readonly agentUid: string }
  | { readonly refused: AcceptanceRefusal };

type AcceptanceRefusal = 'AGENT_NOT_FOUND' | 'AGENT_NAME_AMBIGUOUS' | 'AGENT_REVOKED' | 'CHANNEL_CLOSED' | 'QUEUE_FULL';

/**
 * Below the limit by this much, nobody waits: all gateways together have fewer messages for one agent under way between a
 * statement's look at the queue and its lock.
 */
const crowdedMargin = 500;
/** The first key of the advisory locks on agents' queues; the second is a hash of the uid. */
const queueLock = 0x51756575;

/** The SQL by which messages are accepted. */
export function createAcceptanceQueries(
  { sql, as, lendAs }: Pick<Database, 'sql' | 'as' | 'lendAs'>,
  defaultOrg: string,
  maxOpen: number,
) {
  /** One answer for each request, in its place; `crowded` for what `acceptAlone` has to decide. */
  async function insert(
    ask: Ask,
    requests: readonly AcceptanceRequest[],
    isCrowded: Fragment,
  ): Promise<(Acceptance | 'crowded')[]> {
    const rows = await ask`
      with asked as (
        select * from json_to_recordset(${askedJson(requests)}::text::json) as asked (
          place integer, "orgId" text, ref text, uid uuid, kind text, channel text, type text, payload text,
          priority smallint, retries integer, ttl float8, key text, hash text, details json, actor text, "actorId" text,
          "actorLabel" text, address text, "requestId" text, traceparent text)
      ), named as (
        select asked.*, agent.uid as agent_uid, agent.uid_text, agent.name, agent.org_id, agent.enrollment, agent.dialect,
          agent.uid = asked.uid as is_by_uid, count(*) over (partition by place) as matches, row_number() over (
            partition by place order by agent.uid = asked.uid desc nulls last, agent.org_id = ${defaultOrg} desc) as rank
        from asked, lateral (
          select * from agents where agents.uid = asked.uid
          union all
          select * from agents where agents.name = asked.ref and agents.uid is distinct from asked.uid
        ) as agent where "orgId" is null or "orgId" = agent.org_id
      ), best as (
        select *, row_number() over (partition by agent_uid order by place) - 1 as before from named where rank = 1
      ), verdict as (
        select best.*, gen_random_uuid() as id, case when dialect = 'handoff' then ${handoffFailure} end as failure, case
          when matches > 1 and is_by_uid is not true and org_id <> ${defaultOrg} then 'AGENT_NAME_AMBIGUOUS'
          when key is not null and exists (
            select from message_queue earlier where earlier.org_id = best.org_id and earlier.idempotency_key = key)
            then 'known'
          when enrollment = 'revoked' then 'AGENT_REVOKED'
          when exists (
            select from communication_channels closed where closed.agent_id = uid_text and not closed.is_active
              and closed.channel_name = 'backend.' || agent_uid || '.' || kind) then 'CHANNEL_CLOSED'
          when open.count >= ${maxOpen} then 'QUEUE_FULL'
          when ${isCrowded} then 'crowded'
        end as refusal
        from best, lateral (select count(*) from (
          select from message_queue waiting where waiting.agent_id = uid_text and waiting.processed_at is null
          limit ${maxOpen}) as counted) as open
      ), accepted as (
        -- The three columns of the frame are empty until one is written.
        insert into message_queue (id, agent_id, agent_name, org_id, channel, message_type, payload, encrypted_payload, nonce,
          signature, priority, max_retries, expires_at, idempotency_key, request_hash, traceparent, status, failure,
          processed_at)
        select id, uid_text, name, org_id, channel, type, payload, '', '', '', priority, retries,
          now() + ttl * interval '1 millisecond', key, hash, traceparent, case when failure is null then 'pending' else 'failed' end,
          failure, case when failure is null then null else now() end
        from verdict where refusal is null order by place
        on conflict (org_id, idempotency_key) where idempotency_key is not null do nothing
        returning *
      ), audited as (
        ${auditingEach(
          sql,
          'message.send',
          sql`select accepted.org_id, accepted.id::text, agent_name, json_build_object('agentUid', agent_id, 'request', details),
            actor, "actorId", "actorLabel", address, "requestId" from accepted join verdict on accepted.id = verdict.id`,
        )}
      )
      select accepted.*, verdict.place, verdict.refusal, verdict.org_id as asked_org_id, verdict.agent_uid as asked_uid
      from verdict left join accepted on accepted.id = verdict.id`;
    const answers: (Acceptance | 'crowded')[] = requests.map(() => ({ refused: 'AGENT_NOT_FOUND' }));
    for (const row of rows) {
      const isKnown = row.refusal === 'known' || (row.refusal === null && row.id === null);
      if (isKnown) answers[row.place] = { isKnown, orgId: row.asked_org_id, agentUid: row.asked_uid };
      else if (row.refusal === 'crowded') answers[row.place] = 'crowded';
      else answers[row.place] = row.refusal === null ? { accepted: freshMessageOf(row) } : { refused: row.refusal };
    }
    return answers;
  }

  return {
    /**
     * Accepts messages for the agents that are meant, in one statement, all of the scope's organisation, or tells why not. Near the limit of an agent's queue
     * the answer is `crowded`, and nothing has been done.
     */
    acceptAll(scope: Scope, requests: readonly AcceptanceRequest[]): Promise<(Acceptance | 'crowded')[]> {
      const isCrowded = sql`(open.count + before >= ${maxOpen - crowdedMargin}
        or not pg_try_advisory_xact_lock_shared(${queueLock}, hashtext(uid_text)))`;
      return insert(as(scope), requests, isCrowded);
    },

    /** The same for one, in its turn behind all others for the same agent: not one more than the limit is let in. */
    async acceptAlone(request: AcceptanceRequest): Promise<Acceptance> {
      const uid = uuidOrNull(request.agentRef);
      return lendAs(request.by, (client) =>
        client.begin(async (tx) => {
          // Of all agents that may be meant, in one order.
          await tx`
          select pg_advisory_xact_lock(${queueLock}, key) from (
            select distinct hashtext(uid::text) as key from agents
            where (uid = ${uid} or name = ${request.agentRef})
              and (${request.by.orgId}::text is null or org_id = ${request.by.orgId}) order by 1
          ) as agent`;
          // A statement of its own: it sees what those before it have committed.
          const [answer] = await insert(tx, [request], sql`false`);
          if (!answer || answer === 'crowded') throw new Error('a queue is crowded although its lock is held');
          return answer;
        }),
      );
    },

    /** The message that a key stands for, and what was asked for with it. */
    async findByIdempotencyKey(
      scope: Scope,
      orgId: string,
      key: string,
    ): Promise<{ message: Message; requestHash: string } | null> {
      const [row] = await as(scope)`select * from message_queue where org_id = ${orgId} and idempotency_key = ${key}`;
      const message = row && messageOf(row);
      return row && message ? { message, requestHash: row.request_hash } : null;
    },
  };
}

export type AcceptanceQueries = ReturnType<typeof createAcceptanceQueries>;

function askedJson(requests: readonly AcceptanceRequest[]): string {
  return JSON.stringify(
    requests.map(({ by, agentRef, message }, place) => ({
      ...{ place, orgId: by.orgId, ref: agentRef, uid: uuidOrNull(agentRef) },
      ...{ kind: message.kind, channel: shortCommandChannelName(message.kind), type: message.type },
      ...{ payload: message.payloadText, priority: message.priorityRank, retries: message.maxRetries },
      ...{ ttl: message.ttlMs, key: message.idempotencyKey, hash: message.requestHash, details: sentDetails(message) },
      ...{ actor: by.kind, actorId: by.id, actorLabel: by.label },
      ...{ address: by.origin?.clientAddress, requestId: by.origin?.requestId, traceparent: by.origin?.traceparent },
    })),
  );
}

/** One that this version has just written. */
function freshMessageOf(row: Row): Message {
  const message = messageOf(row);
  if (!message) throw new Error(`message ${row.id} was accepted and cannot be read`);
  return message;
}
