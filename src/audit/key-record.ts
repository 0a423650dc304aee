import type { Database } from '../db/database.ts';
import { gatewayActor } from './actor.ts';
import { allEntries, auditing } from './auditing.ts';

/**
 * Puts on record with which keys gateways prove themselves, by fingerprint, where that is not what was put on record last: it
 * tells of rotations, and of files that somebody exchanged.
 */
export async function recordGatewayKeys(
  { sql }: Pick<Database, 'sql'>,
  keys: { readonly current: string; readonly next: string | null },
): Promise<void> {
  const { current, next } = keys;
  await sql`${auditing(
    sql,
    gatewayActor,
    'gateway-key.load',
    sql`select null, 'gateway', ${current}::text, loaded.keys
      from (select json_build_object('current', ${current}::text, 'next', ${next}::text)) as loaded (keys)
      where loaded.keys::text is distinct from (
        select details::text from ${allEntries(sql)} as entry where subject_id = 'gateway' and action = 'gateway-key.load'
        order by id desc limit 1)`,
  )}`;
}
