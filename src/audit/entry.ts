import type { Row } from 'postgres';
import type { Scope } from '../access/scope.ts';
import type { Page, PageRequest } from '../paging.ts';

/** What an entry says, however it is read. */
export interface EntryFacts {
  readonly id: number;
  readonly actorKind: string;
  readonly actorId: string;
  readonly actorLabel: string;
  readonly address: string | null;
  readonly requestId: string | null;
  readonly action: string;
  readonly subjectType: string;
  readonly subjectId: string;
  readonly subjectName: string | null;
  /** `OK`, or the code of a refusal. */
  readonly outcome: string;
}

/** An entry of the audit log, as auditors read it. */
export interface AuditEntry extends EntryFacts {
  /** Null: of no organisation in particular. */
  readonly orgId: string | null;
  /** By the clock of the database. */
  readonly at: Date;
  readonly details: unknown;
  /** Its place in the chain of its organisation, from 1 on; null until it is sealed. */
  readonly number: number | null;
  /** Lower-case hex; null until it is sealed. */
  readonly hash: string | null;
}

/** Which entries; every given condition must hold. */
export interface AuditFilter {
  readonly orgId?: string | undefined;
  /** One of these. */
  readonly actions?: readonly string[] | undefined;
  readonly actorId?: string | undefined;
  readonly subjectId?: string | undefined;
  readonly outcome?: string | undefined;
  /** From then on. */
  readonly since?: Date | undefined;
  /** Before then. */
  readonly until?: Date | undefined;
}

/** The audit log, as it is read. Whoever writes an entry does so in the statement that it tells of (`auditing.ts`). */
export interface AuditLog {
  /** The newest first. Entries outside the scope do not exist; those of no organisation are for all organisations' eyes alone. */
  page(scope: Scope, filter: AuditFilter, request: PageRequest): Promise<Page<AuditEntry>>;

  /** Place in `page`'s list, for a connection's edges. */
  cursorOf(entry: AuditEntry): string;
}

export function factsOf(row: Row): EntryFacts {
  return {
    id: row.id,
    actorKind: row.actor_kind,
    actorId: row.actor_id,
    actorLabel: row.actor_label,
    address: row.address,
    requestId: row.request_id,
    action: row.action,
    subjectType: row.subject_type,
    subjectId: row.subject_id,
    subjectName: row.subject_name,
    outcome: row.outcome,
  };
}
