import type { Fragment, Row, Sql } from 'postgres';
import type { Scope } from '../access/scope.ts';
import type { Database } from '../db/database.ts';
import type { KeysetRange } from '../paging.ts';
import { type EventFilter, eventKinds, type NewEvent, type StoredEvent, severities, severityRank } from './event.ts';

/** The SQL of the events. */
export function createEventQueries(database: Database) {
  const { sql } = database;
  const columns = sql`position, kind, org_id, agent_uid, agent_name, message_id, occurred_at, received_at, trusted, sealed,
    severity, reply_to, payload`;

  return {
    /**
     * Stores what is new among the events and gives each of those its position; null stands for what was there before.
     * One statement, hence one transaction: the stream's row is held from here to the commit and never across a round trip,
     * so positions are dense and no event becomes visible behind a later one. Keys go in sorted, so that two gateways
     * cannot deadlock over them.
     */
    async append(events: readonly NewEvent[], receivedAt: Date): Promise<(number | null)[]> {
      // As JSON: a tenth of the work of thirteen array parameters, here and there.
      const incoming = JSON.stringify(
        events.map((event) => ({
          key: event.key,
          body_hash: event.bodyHash,
          kind: event.kind,
          org_id: event.orgId,
          agent_uid: event.agentUid,
          agent_name: event.agentName,
          message_id: event.messageId,
          occurred_at: event.occurredAt,
          trusted: event.trusted,
          sealed: event.sealed,
          severity: severityRank(event.severity),
          reply_to: event.replyTo,
          payload: event.payloadText,
        })),
      );
      const [row] = await sql<{ before: number | null; known: number[] }[]>`
        with incoming as (
          select * from rows from (json_to_recordset(${incoming}::text::json) as (
            key uuid, body_hash uuid, kind text, org_id text, agent_uid uuid, agent_name text, message_id text,
            occurred_at timestamptz, trusted boolean, sealed boolean, severity smallint, reply_to uuid, payload text
          )) with ordinality as t (key, body_hash, kind, org_id, agent_uid, agent_name, message_id, occurred_at, trusted, sealed,
            severity, reply_to, payload, place)
        ), fresh as (
          insert into recent_event_ids (key, body_hash, received_at)
          select key, body_hash, ${receivedAt.toISOString()}::timestamptz from incoming order by key
          on conflict (key) do nothing
          returning key
        ), numbered as (
          select incoming.*, row_number() over (order by place) as number from incoming join fresh using (key)
        ), head as (
          update event_stream set position = position + (select count(*) from numbered)
          where id = 1 and exists (select from numbered)
          returning position - (select count(*) from numbered) as before
        ), stored as (
          insert into events (${columns})
          select head.before + number, kind, org_id, agent_uid, agent_name, message_id, occurred_at,
            ${receivedAt.toISOString()}::timestamptz, trusted, sealed, severity, reply_to, payload::json
          from numbered, head
        )
        select (select before from head) as before, array(
          select place from incoming left join fresh using (key) where fresh.key is null) as known`;
      if (!row) throw new Error('storing events gave no answer');
      const known = new Set(row.known);
      let position = row.before ?? 0;
      return events.map((_event, index) => (known.has(index + 1) ? null : ++position));
    },

    /** What the messages of these keys said when they were stored. */
    async bodyHashes(keys: readonly string[]): Promise<ReadonlyMap<string, string>> {
      const rows = await sql<{ key: string; body_hash: string }[]>`
        select key, body_hash from recent_event_ids where key = any(${[...keys]}::uuid[])`;
      return new Map(rows.map((row) => [row.key, row.body_hash]));
    },

    /** Forgets a bounded number of ids that came before `before`; answers how many. */
    async forgetIds(before: Date, limit: number): Promise<number> {
      const result = await sql`
        delete from recent_event_ids where key in (
          select key from recent_event_ids where received_at < ${before.toISOString()}::timestamptz limit ${limit}
          for update skip locked)`;
      return result.count;
    },

    async headPosition(): Promise<number> {
      const [row] = await sql<{ position: number }[]>`select position from event_stream where id = 1`;
      if (!row) throw new Error('event_stream has lost its row');
      return row.position;
    },

    /** Up to `range.limit + 1` events in the range's direction. */
    async page(scope: Scope, filter: EventFilter, range: KeysetRange<number>): Promise<StoredEvent[]> {
      const kinds = filter.agentUid === undefined ? filter.kinds : undefined;
      const order = range.backwards ? sql`desc` : sql`asc`;
      const where = sql`${matching(sql, filter)} ${inScope(sql, scope)} ${inRange(sql, range)}`;
      const limit = range.limit + 1;
      // One index scan for each kind: a rare kind must not mean reading all the others.
      const rows = kinds
        ? await sql`
            select event.* from unnest(${[...new Set(kinds)]}::text[]) as wanted (kind), lateral (
              select ${columns} from events where kind = wanted.kind and ${where} order by position ${order} limit ${limit}
            ) as event order by position ${order} limit ${limit}`
        : await sql`select ${columns} from events where ${where} order by position ${order} limit ${limit}`;
      return rows.map(storedEvent);
    },

    /** The same for each of many agents, each event with its agent's uid. */
    async pageByAgent(
      agentUids: readonly string[],
      filter: EventFilter,
      range: KeysetRange<number>,
    ): Promise<StoredEvent[]> {
      const order = range.backwards ? sql`desc` : sql`asc`;
      const rows = await sql`
        select event.* from unnest(${[...agentUids]}::uuid[]) as wanted (uid), lateral (
          select ${columns} from events
          where agent_uid = wanted.uid and ${matching(sql, { ...filter, agentUid: undefined })} ${inRange(sql, range)}
          order by position ${order} limit ${range.limit + 1}
        ) as event order by position ${order}`;
      return rows.map(storedEvent);
    },

    async findAll(scope: Scope, positions: readonly number[]): Promise<StoredEvent[]> {
      const rows = await sql`
        select ${columns} from events where position = any(${[...positions]}::bigint[]) ${inScope(sql, scope)}`;
      return rows.map(storedEvent);
    },

    async repliesTo(messageIds: readonly string[]): Promise<StoredEvent[]> {
      const rows = await sql`
        select ${columns} from events where reply_to = any(${[...messageIds]}::uuid[]) order by position`;
      return rows.map(storedEvent);
    },

    /** Every event from `after`, exclusive, on: what the stream has missed. */
    async since(after: number, limit: number): Promise<StoredEvent[]> {
      const rows = await sql`select ${columns} from events where position > ${after} order by position limit ${limit}`;
      return rows.map(storedEvent);
    },
  };
}

export type EventQueries = ReturnType<typeof createEventQueries>;

/** The conditions of `matchesFilter`, in SQL. */
function matching(sql: Sql, filter: EventFilter): Fragment {
  return sql`true
    ${filter.includeUntrusted === true ? sql`` : sql`and trusted`}
    ${filter.agentUid === undefined ? sql`` : sql`and agent_uid = ${filter.agentUid}`}
    ${filter.kinds === undefined ? sql`` : sql`and kind = any(${[...filter.kinds]}::text[])`}
    ${filter.minSeverity === undefined ? sql`` : sql`and (sealed or severity >= ${severityRank(filter.minSeverity)})`}`;
}

function inScope(sql: Sql, scope: Scope): Fragment {
  return scope.orgId === null ? sql`` : sql`and org_id = ${scope.orgId}`;
}

function inRange(sql: Sql, range: KeysetRange<number>): Fragment {
  return sql`
    ${range.after === null ? sql`` : sql`and position > ${range.after}`}
    ${range.before === null ? sql`` : sql`and position < ${range.before}`}`;
}

function storedEvent(row: Row): StoredEvent {
  const kind = eventKinds.find((candidate) => candidate === row.kind);
  const severity = severities[row.severity];
  if (!kind || !severity)
    throw new Error(`event ${row.position} has a kind or severity that this version does not know`);
  return {
    position: row.position,
    kind,
    orgId: row.org_id,
    agentUid: row.agent_uid,
    agentName: row.agent_name,
    messageId: row.message_id,
    occurredAt: new Date(row.occurred_at),
    receivedAt: new Date(row.received_at),
    trusted: row.trusted,
    sealed: row.sealed,
    severity,
    replyTo: row.reply_to,
    payload: row.payload,
  };
}
