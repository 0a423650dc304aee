import { createHash } from 'node:crypto';
import type { Fragment, Row, Sql, TransactionSql } from 'postgres';
import { type EntryFacts, factsOf } from './entry.ts';

/** What is sealed of an entry, as the database has it: times to the microsecond, details as they were written. */
export interface SealedContent extends EntryFacts {
  /** Empty: of no organisation in particular. */
  readonly chain: string;
  readonly at: string;
  readonly details: string;
}

/** A place in a chain: the number of an entry and its hash, which stands for all entries up to it. */
export interface ChainPlace {
  readonly number: number;
  /** Lower-case hex. */
  readonly hash: string;
}

/** Before the first entry. */
export const chainStart: ChainPlace = { number: 0, hash: '0'.repeat(64) };

/**
 * The hash of the entry that follows `previous`: SHA-256 over the 32 bytes of the previous hash and the entry's canonical
 * bytes, the UTF-8 of a JSON array without white space (docs/AUDIT.md).
 */
export function nextPlace(previous: ChainPlace, content: SealedContent): ChainPlace {
  const number = previous.number + 1;
  const canonical = JSON.stringify([
    ...['aegis-audit-1', content.chain, number, content.id, content.at],
    ...[content.actorKind, content.actorId, content.actorLabel, content.address, content.requestId],
    ...[content.action, content.subjectType, content.subjectId, content.subjectName, content.outcome, content.details],
  ]);
  const hash = createHash('sha256').update(Buffer.from(previous.hash, 'hex')).update(canonical).digest('hex');
  return { number, hash };
}

/** The same canonical bytes, as text, by SQL: of a row of entry columns, `chain` and `number`. */
export function canonicalText(sql: Sql | TransactionSql): Fragment {
  const text = (column: string) => sql`to_json(${sql(column)})::text`;
  const textOrNull = (column: string) => sql`coalesce(to_json(${sql(column)})::text, 'null')`;
  return sql`concat('["aegis-audit-1",', concat_ws(',', ${text('chain')}, number, id, to_json(${sealedAt(sql)})::text,
    ${text('actor_kind')}, ${text('actor_id')}, ${text('actor_label')}, ${textOrNull('address')}, ${textOrNull('request_id')},
    ${text('action')}, ${text('subject_type')}, ${text('subject_id')}, ${textOrNull('subject_name')}, ${text('outcome')},
    to_json(details::text)::text), ']')`;
}

function sealedAt(sql: Sql | TransactionSql): Fragment {
  return sql`to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;
}

/** The columns of `audit_entries` that `contentOf` reads. */
export function contentColumns(sql: Sql | TransactionSql): Fragment {
  return sql`id, coalesce(org_id, '') as chain, ${sealedAt(sql)} as sealed_at, actor_kind, actor_id, actor_label, address, request_id, action, subject_type, subject_id, subject_name, outcome,
    details::text as sealed_details`;
}

export function contentOf(row: Row): SealedContent {
  return { ...factsOf(row), chain: row.chain, at: row.sealed_at, details: row.sealed_details };
}
