import type { Fragment, Row, Sql } from 'postgres';
import type { Scope } from '../access/scope.ts';
import type { Database } from '../db/database.ts';
import type { KeysetRange } from '../paging.ts';
import { eventColumns } from './appending.ts';
import { type EventFilter, eventKinds, type StoredEvent, severities, severityRank } from './event.ts';
import type { DroppedThrough } from './gaps.ts';
import type { StreamHours } from './hours.ts';

/** The SQL of reading events. */
export function createEventQueries(deps: {
  readonly database: Pick<Database, 'sql' | 'as'>;
  readonly hours: Pick<StreamHours, 'holding'>;
  readonly logError: (error: unknown, context: string) => void;
}) {
  const { sql, as } = deps.database;
  const { hours } = deps;
  const unknown = new Set<string>();
  const columns = eventColumns(sql);

  return {
    async headPosition(): Promise<number> {
      const [row] = await sql<{ position: number }[]>`select position from event_stream where id = 1`;
      if (!row) throw new Error('event_stream has lost its row');
      return row.position;
    },

    /** How far retention has come with each kind. */
    async droppedThrough(): Promise<DroppedThrough> {
      const rows = await sql<{ kind: string; through_position: number }[]>`
        select kind, through_position from dropped_events`;
      return new Map(rows.map((row) => [row.kind, row.through_position]));
    },

    /** Up to `range.limit + 1` events in the range's direction. */
    async page(scope: Scope, filter: EventFilter, range: KeysetRange<number>): Promise<StoredEvent[]> {
      const order = range.backwards ? sql`desc` : sql`asc`;
      const where = sql`${matching(sql, filter)} ${inScope(sql, scope)} ${inRange(range)}`;
      const limit = range.limit + 1;
      // Each kind by itself: a rare one must not mean reading all the others, and each has partitions of its own.
      const kinds = filter.agentUid === undefined ? filter.kinds : undefined;
      const [first, ...others] = [...new Set(kinds)].map(
        (kind) =>
          sql`(select ${columns} from events where kind = ${kind} and ${where} order by position ${order} limit ${limit})`,
      );
      if (kinds && !first) return [];
      const parts = first && others.reduce((all, part) => sql`${all} union all ${part}`, first);
      const rows = parts
        ? await as(scope)`select * from (${parts}) as events order by position ${order} limit ${limit}`
        : await as(scope)`select ${columns} from events where ${where} order by position ${order} limit ${limit}`;
      return known(rows);
    },

    /** The same for each of many agents, each event with its agent's uid. */
    async pageByAgent(
      scope: Scope,
      agentUids: readonly string[],
      filter: EventFilter,
      range: KeysetRange<number>,
    ): Promise<StoredEvent[]> {
      const order = range.backwards ? sql`desc` : sql`asc`;
      const rows = await as(scope)`
        select event.* from unnest(${[...agentUids]}::uuid[]) as wanted (uid), lateral (
          select ${columns} from events
          where agent_uid = wanted.uid and ${matching(sql, { ...filter, agentUid: undefined })} ${inScope(sql, scope)}
            ${inRange(range)}
          order by position ${order} limit ${range.limit + 1}
        ) as event order by position ${order}`;
      return known(rows);
    },

    async findAll(scope: Scope, positions: readonly number[]): Promise<StoredEvent[]> {
      if (positions.length === 0) return [];
      const around = { after: Math.min(...positions) - 1, before: Math.max(...positions) + 1 };
      const rows = await as(scope)`
        select ${columns} from events
        where position = any(${[...positions]}::bigint[]) ${inScope(sql, scope)} ${inHours(around)}`;
      return known(rows);
    },

    async repliesTo(scope: Scope, messageIds: readonly string[]): Promise<StoredEvent[]> {
      const rows = await as(scope)`
        select ${columns} from events where reply_to = any(${[...messageIds]}::uuid[]) ${inScope(sql, scope)}
        order by position`;
      return known(rows);
    },

    /** Every event from `after`, exclusive, on, and the last position that was read; null where there is nothing more. */
    async since(after: number, limit: number): Promise<{ events: StoredEvent[]; last: number | null }> {
      const rows = await sql<(Row & { position: number })[]>`
        select ${columns} from events where position > ${after} ${inHours({ after, before: null })}
        order by position limit ${limit}`;
      return { events: known(rows), last: rows.at(-1)?.position ?? null };
    },
  };

  /**
   * What this version knows, told once of what it does not: while gateways are brought up to a newer version one by one, these may
   * store what those that are left cannot read.
   */
  function known(rows: readonly Row[]): StoredEvent[] {
    return rows.flatMap((row) => {
      const event = storedEvent(row);
      if (event) return [event];
      const what = `kind ${row.kind}, severity ${row.severity}`;
      if (!unknown.has(what)) deps.logError(new Error(what), 'events are left out that this version does not know');
      unknown.add(what);
      return [];
    });
  }

  function inRange({ after, before }: Pick<KeysetRange<number>, 'after' | 'before'>): Fragment {
    return sql`
      ${after === null ? sql`` : sql`and position > ${after}`}
      ${before === null ? sql`` : sql`and position < ${before}`}
      ${inHours({ after, before })}`;
  }

  function inHours({ after, before }: Pick<KeysetRange<number>, 'after' | 'before'>): Fragment {
    const { from, until } = hours.holding(after, before);
    return sql`and hour >= ${from} and hour < ${until}`;
  }
}

export type EventQueries = ReturnType<typeof createEventQueries>;

/** The conditions of `matchesFilter`, in SQL, and that this version knows the event. */
function matching(sql: Sql, filter: EventFilter): Fragment {
  return sql`kind = any(${[...(filter.kinds ?? eventKinds)]}::text[])
    and severity >= 0 and severity < ${severities.length}
    ${filter.includeUntrusted === true ? sql`` : sql`and trusted`}
    ${filter.agentUid === undefined ? sql`` : sql`and agent_uid = ${filter.agentUid}`}
    ${filter.minSeverity === undefined ? sql`` : sql`and (sealed or severity >= ${severityRank(filter.minSeverity)})`}`;
}

function inScope(sql: Sql, scope: Scope): Fragment {
  return scope.orgId === null ? sql`` : sql`and org_id = ${scope.orgId}`;
}

/** Null for what another version has stored and this one does not know. */
function storedEvent(row: Row): StoredEvent | null {
  const kind = eventKinds.find((candidate) => candidate === row.kind);
  const severity = severities[row.severity];
  if (!kind || !severity) return null;
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
