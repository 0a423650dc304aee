import type { Row } from 'postgres';
import type { Changer } from '../audit/actor.ts';
import { auditing } from '../audit/auditing.ts';
import type { Database } from '../db/database.ts';
import type { KeysetRange } from '../paging.ts';
import type { ApiKey } from './api-keys.ts';
import { isPermission, type Permission } from './consumer.ts';
import type { Scope } from './scope.ts';

/** A key about to be stored. */
export interface StoredKey {
  readonly hash: string;
  readonly prefix: string;
  readonly name: string;
  readonly orgId: string | null;
  readonly permissions: readonly Permission[];
  readonly expiresInSeconds: number | null;
}

/** The SQL of the API keys. */
export function createApiKeyQueries({ sql, as }: Pick<Database, 'sql' | 'as'>) {
  const columns = sql`id, prefix, name, org_id, scopes, created_at, created_by, expires_at, last_used_at, revoked_at, sequence,
    case when revoked_at is not null then 'revoked' when expires_at <= now() then 'expired' else 'usable' end as state`;
  const inScope = ({ orgId }: Scope) => (orgId === null ? sql`` : sql`and org_id = ${orgId}`);

  return {
    async insert(by: Changer, key: StoredKey): Promise<ApiKey> {
      const [row] = await as(by)`
        with made as (
          insert into api_keys (key_hash, prefix, name, org_id, scopes, created_by, expires_at)
          values (${key.hash}, ${key.prefix}, ${key.name}, ${key.orgId}, ${[...key.permissions]}::text[], ${by.label},
            now() + ${key.expiresInSeconds}::float8 * interval '1 second')
          returning *
        ), audited as (
          ${auditing(
            sql,
            by,
            'api-key.create',
            sql`select org_id, id::text, name, json_build_object('prefix', prefix, 'scopes', scopes, 'expiresAt', expires_at)
              from made`,
          )}
        )
        select ${columns} from made`;
      if (!row) throw new Error('the API key was not stored');
      return apiKeyOf(row);
    },

    /** The key with this hash where it may be used. */
    async findUsable(hash: string): Promise<ApiKey | null> {
      const [row] = await sql`
        select ${columns} from api_keys
        where key_hash = ${hash} and revoked_at is null and (expires_at is null or expires_at > now())`;
      return row ? apiKeyOf(row) : null;
    },

    /** Those of these keys that may be used. */
    async usable(ids: readonly string[]): Promise<string[]> {
      const rows = await sql<{ id: string }[]>`
        select id from api_keys
        where id = any(${[...ids]}::uuid[]) and revoked_at is null and (expires_at is null or expires_at > now())`;
      return rows.map(({ id }) => id);
    },

    async page(scope: Scope, { after, before, backwards, limit }: KeysetRange<number>): Promise<ApiKey[]> {
      const rows = await as(scope)`
        select ${columns} from api_keys where true ${inScope(scope)}
          ${after === null ? sql`` : sql`and sequence < ${after}`} ${before === null ? sql`` : sql`and sequence > ${before}`}
        order by sequence ${backwards ? sql`` : sql`desc`} limit ${limit + 1}`;
      return rows.map(apiKeyOf);
    },

    async count(scope: Scope): Promise<number> {
      const [row] = await as(scope)<{ count: number }[]>`select count(*) from api_keys where true ${inScope(scope)}`;
      return row?.count ?? 0;
    },

    async revoke(by: Changer, id: string): Promise<ApiKey | null> {
      const [row] = await as(by)`
        with revoked as (
          update api_keys set revoked_at = coalesce(revoked_at, now()) where id = ${id} ${inScope(by)} returning *
        ), audited as (
          ${auditing(
            sql,
            by,
            'api-key.revoke',
            sql`select org_id, id::text, name, json_build_object('prefix', prefix) from revoked`,
          )}
        )
        select ${columns} from revoked`;
      return row ? apiKeyOf(row) : null;
    },

    async noteUses(uses: ReadonlyMap<string, Date>): Promise<void> {
      const ids = [...uses.keys()];
      const times = [...uses.values()].map((at) => at.toISOString());
      await sql`
        update api_keys set last_used_at = greatest(last_used_at, used.at::timestamptz)
        from unnest(${ids}::uuid[], ${times}::text[]) as used (id, at) where api_keys.id = used.id`;
    },
  };
}

function apiKeyOf(row: Row): ApiKey {
  const date = (value: string | Date | null) => (value === null ? null : new Date(value));
  return {
    id: row.id,
    prefix: row.prefix,
    name: row.name,
    orgId: row.org_id,
    permissions: row.scopes.filter(isPermission),
    state: row.state,
    createdAt: new Date(row.created_at),
    createdBy: row.created_by,
    expiresAt: date(row.expires_at),
    lastUsedAt: date(row.last_used_at),
    revokedAt: date(row.revoked_at),
    sequence: row.sequence,
  };
}
