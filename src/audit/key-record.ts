import type { Database } from '../db/database.ts';
import { type Actor, gatewayActor } from './actor.ts';
import { allEntries, auditing, detailsOf } from './auditing.ts';

/** The gateway's keys by their fingerprints. */
export interface KeyFingerprints {
  readonly current: string;
  readonly next: string | null;
}

/**
 * Puts on record with which keys gateways prove themselves, by fingerprint, where that is not what was put on record last: it
 * tells of rotations, and of files that somebody exchanged.
 */
export async function recordGatewayKeys({ sql }: Pick<Database, 'sql'>, keys: KeyFingerprints): Promise<void> {
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

/** Puts on record that somebody changed the files of the gateway's keys, and which they hold since. */
export async function recordKeyChange(
  { sql }: Pick<Database, 'sql'>,
  by: Actor,
  action: 'gateway-key.prepare' | 'gateway-key.rotate',
  keys: KeyFingerprints,
): Promise<void> {
  await sql`${auditing(
    sql,
    by,
    action,
    sql`select null, 'gateway', ${keys.current}::text, ${detailsOf(sql, { current: keys.current, next: keys.next })}`,
  )}`;
}
