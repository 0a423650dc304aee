import type { Fragment, Row, Sql } from 'postgres';
import type { Database } from '../db/database.ts';
import { decodeNumericCursor, encodeCursor, keysetRange, pageOf } from '../paging.ts';
import { allEntries, entryColumns } from './auditing.ts';
import { type AuditEntry, type AuditFilter, type AuditLog, factsOf } from './entry.ts';

export function createAuditLog({ sql, as }: Database): AuditLog {
  return {
    async page(scope, filter, request) {
      const range = keysetRange(request, (cursor) => decodeNumericCursor('audit-entry', cursor));
      const { after, before } = range;
      const rows = await as(scope)`
        select ${entryColumns(sql)}, number, hash from ${allEntries(sql)} as entry where ${matching(sql, filter)} ${scope.orgId === null ? sql`` : sql`and org_id = ${scope.orgId}`}
          ${after === null ? sql`` : sql`and id < ${after}`} ${before === null ? sql`` : sql`and id > ${before}`}
        order by id ${range.backwards ? sql`` : sql`desc`} limit ${range.limit + 1}`;
      return pageOf(range, rows.map(entryOf));
    },
    cursorOf: (entry) => encodeCursor('audit-entry', entry.id),
  };
}

function matching(sql: Sql, filter: AuditFilter): Fragment {
  const { orgId, actions, actorId, subjectId, outcome, since, until } = filter;
  return sql`true
    ${orgId === undefined ? sql`` : sql`and org_id = ${orgId}`}
    ${actions === undefined ? sql`` : sql`and action = any(${[...actions]}::text[])`}
    ${actorId === undefined ? sql`` : sql`and actor_id = ${actorId}`}
    ${subjectId === undefined ? sql`` : sql`and subject_id = ${subjectId}`}
    ${outcome === undefined ? sql`` : sql`and outcome = ${outcome}`}
    ${since === undefined ? sql`` : sql`and at >= ${momentOf(sql, since)}`}
    ${until === undefined ? sql`` : sql`and at < ${momentOf(sql, until)}`}`;
}

/** Not as text: Postgres writes years before 1 in another way. */
function momentOf(sql: Sql, at: Date): Fragment {
  return sql`to_timestamp(${at.getTime()}::float8 / 1000)`;
}

function entryOf(row: Row): AuditEntry {
  const { org_id: orgId, details, number, hash } = row;
  return { ...factsOf(row), orgId, at: new Date(row.at), details, number, hash };
}
