import type { Fragment, Sql, TransactionSql } from 'postgres';
import { type AuditedAction, auditedActions } from './actions.ts';
import type { Actor } from './actor.ts';

/** Longest text among the details, in characters. */
const maxTextCharacters = 1_000;

/**
 * The INSERT that puts an action on record, to stand in the statement that does it, or at least in its transaction: as a CTE
 * it costs no round trip, and neither is ever there without the other. `subjects` selects a row for each entry: the
 * organisation that it belongs to (null: none in particular), the subject's id and name, and details as `json`. Details
 * hold no secrets, and nothing without a bound.
 */
export function auditing(sql: Sql | TransactionSql, by: Actor, action: AuditedAction, subjects: Fragment): Fragment {
  const { clientAddress = null, requestId = null } = by.origin ?? {};
  return auditingEach(
    sql,
    action,
    sql`select subject.*, ${by.kind}::text, ${by.id}::text, ${by.label}::text, ${clientAddress}::text, ${requestId}::text
      from (${subjects}) as subject`,
  );
}

/** The same where each subject was somebody else's doing: further columns are the actor's kind, id, label, address and request id. */
export function auditingEach(sql: Sql | TransactionSql, action: AuditedAction, subjects: Fragment): Fragment {
  return sql`
    insert into audit_pending (org_id, subject_id, subject_name, details, actor_kind, actor_id, actor_label, address, request_id,
      action, subject_type)
    select subject.*, ${action}::text, ${auditedActions[action]}::text from (${subjects}) as subject`;
}

/** The columns that every entry has, sealed or not. */
export function entryColumns(sql: Sql | TransactionSql): Fragment {
  return sql`id, org_id, at, actor_kind, actor_id, actor_label, address, request_id, action, subject_type, subject_id,
    subject_name, outcome, details`;
}

/** Every entry, sealed or not, to select from; `number` and `hash` are null where it is not. */
export function allEntries(sql: Sql | TransactionSql): Fragment {
  return sql`(select ${entryColumns(sql)}, number, hash from audit_entries
    union all select ${entryColumns(sql)}, null, null from audit_pending)`;
}

/** Details that are known before the statement. */
export function detailsOf(sql: Sql | TransactionSql, details: Readonly<Record<string, unknown>>): Fragment {
  return sql`${JSON.stringify(details)}::text::json`;
}

/** The beginning of a text that somebody else has worded. */
export function beginningOf(text: string): string {
  const cut = text.slice(0, maxTextCharacters);
  // Not between the halves of a pair.
  return /[\uD800-\uDBFF]$/.test(cut) ? cut.slice(0, -1) : cut;
}
