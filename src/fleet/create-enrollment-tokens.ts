import { randomBytes } from 'node:crypto';
import type { Row, Sql, TransactionSql } from 'postgres';
import type { Scope } from '../access/scope.ts';
import { auditing } from '../audit/auditing.ts';
import type { Database } from '../db/database.ts';
import { AegisError } from '../errors.ts';
import { decodeNumericCursor, encodeCursor, keysetRange, pageOf } from '../paging.ts';
import type { EnrollmentToken, EnrollmentTokens } from './enrollment-tokens.ts';
import { tokenHash } from './keys.ts';
import { uuidOrNull } from './queries.ts';

/** A token that an agent may use now, as an admission needs it. */
export interface UsableToken {
  readonly id: string;
  readonly orgId: string;
  readonly agentName: string | null;
}

export function createEnrollmentTokens(deps: {
  readonly database: Database;
  readonly defaultOrg: string;
}): EnrollmentTokens {
  const { sql, as } = deps.database;

  return {
    async create(by, { orgId, agentName, note, expiresInSeconds }) {
      const org = orgId ?? by.orgId ?? deps.defaultOrg;
      if (by.orgId !== null && org !== by.orgId) throw new AegisError('FORBIDDEN');
      const secret = `enr_${randomBytes(32).toString('base64url')}`;
      // Their number grows with this alone, so this is where old ones are forgotten.
      const [row] = await as(by)`
        with forgotten as (
          delete from enrollment_tokens where expires_at < now() - interval '30 days'
        ), made as (
          insert into enrollment_tokens (token_hash, org_id, agent_name, note, expires_at)
          values (${tokenHash(secret)}, ${org}, ${agentName ?? null}, ${note ?? null},
            now() + ${expiresInSeconds} * interval '1 second')
          returning *
        ), audited as (
          ${auditing(
            sql,
            by,
            'enrollment-token.create',
            sql`select org_id, id::text, agent_name, json_build_object('expiresAt', expires_at) from made`,
          )}
        )
        select ${columns(sql)} from made`;
      if (!row) throw new Error('the enrolment token was not stored');
      return { secret, token: tokenOf(row) };
    },
    async page(scope, request) {
      const range = keysetRange(request, (cursor) => decodeNumericCursor('enrollment-token', cursor));
      const { after, before } = range;
      const rows = await as(scope)`
        select ${columns(sql)} from enrollment_tokens where true ${inScope(sql, scope)}
          ${after === null ? sql`` : sql`and sequence < ${after}`} ${before === null ? sql`` : sql`and sequence > ${before}`}
        order by sequence ${range.backwards ? sql`` : sql`desc`} limit ${range.limit + 1}`;
      return pageOf(range, rows.map(tokenOf));
    },
    async count(scope) {
      const [row] = await as(scope)<{ count: number }[]>`
        select count(*) from enrollment_tokens where true ${inScope(sql, scope)}`;
      return row?.count ?? 0;
    },
    cursorOf: (token) => encodeCursor('enrollment-token', token.sequence),
    async revoke(by, id) {
      const [row] = await as(by)`
        with revoked as (
          update enrollment_tokens set revoked_at = coalesce(revoked_at, now())
          where id = ${uuidOrNull(id)} ${inScope(sql, by)} returning *
        ), audited as (
          ${auditing(sql, by, 'enrollment-token.revoke', sql`select org_id, id::text, agent_name, '{}'::json from revoked`)}
        )
        select ${columns(sql)} from revoked`;
      if (!row) throw new AegisError('NOT_FOUND');
      return tokenOf(row);
    },
  };
}

/** Those of the tokens that may be used now, by their hash, locked: whoever asks for one meanwhile finds it used. */
export async function lockUsableTokens(
  tx: TransactionSql,
  hashes: readonly string[],
): Promise<ReadonlyMap<string, UsableToken>> {
  if (hashes.length === 0) return new Map();
  const rows = await tx`
    select id, token_hash, org_id, agent_name from enrollment_tokens
    where token_hash = any(${[...hashes]}::text[]) and used_at is null and revoked_at is null and expires_at > now()
    order by token_hash for update`;
  return new Map(
    rows.map((row) => [row.token_hash, { id: row.id, orgId: row.org_id, agentName: row.agent_name }] as const),
  );
}

export async function useTokens(
  tx: TransactionSql,
  uses: readonly { readonly id: string; readonly agentUid: string }[],
): Promise<void> {
  if (uses.length === 0) return;
  await tx`
    update enrollment_tokens set used_at = now(), used_by = "agentUid"
    from json_to_recordset(${JSON.stringify(uses)}::text::json) as used (id uuid, "agentUid" uuid)
    where enrollment_tokens.id = used.id`;
}

function columns(sql: Sql) {
  return sql`id, org_id, agent_name, note, created_at, expires_at, used_at, used_by, revoked_at, sequence, case
    when used_at is not null then 'used' when revoked_at is not null then 'revoked'
    when expires_at <= now() then 'expired' else 'usable' end as state`;
}

function inScope(sql: Sql, scope: Scope) {
  return scope.orgId === null ? sql`` : sql`and org_id = ${scope.orgId}`;
}

function tokenOf(row: Row): EnrollmentToken {
  const date = (value: string | Date | null) => (value === null ? null : new Date(value));
  return {
    id: row.id,
    orgId: row.org_id,
    agentName: row.agent_name,
    note: row.note,
    state: row.state,
    createdAt: new Date(row.created_at),
    expiresAt: new Date(row.expires_at),
    usedAt: date(row.used_at),
    usedBy: row.used_by,
    revokedAt: date(row.revoked_at),
    sequence: row.sequence,
  };
}
