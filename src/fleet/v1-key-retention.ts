import { type Clock, repeat } from '../clock.ts';
import type { Database } from '../db/database.ts';

/** Forgets keys that were shown on v1 long ago, so that whoever makes new ones for ever does not fill the database. */
export interface V1KeyRetention {
  start(): void;
  stop(): void;
}

/** Counted from when it was first shown. A key of v1 lives as long as its agent's process. */
export const v1KeysKeptMs = 180 * 86_400_000;
const intervalMs = 600_000;
const maxAtOnce = 10_000;

/** A key that is on record for an agent, in whatever way, is never forgotten. */
export function createV1KeyRetention(deps: {
  readonly database: Pick<Database, 'sql'>;
  readonly clock: Clock;
  readonly logError: (error: unknown, context: string) => void;
}): V1KeyRetention {
  const { sql } = deps.database;
  let stopRepeating = () => {};

  async function forget(): Promise<void> {
    let forgotten: { readonly count: number };
    do {
      forgotten = await sql`
        delete from v1_keys where key_fingerprint in (
          select key_fingerprint from v1_keys old
          where seen_at < now() - ${v1KeysKeptMs}::float8 * interval '1 millisecond'
            and not exists (
              select from agents where old.key_fingerprint in (key_fingerprint, successor_key_fingerprint))
            and not exists (select from agent_keys key where key.key_fingerprint = old.key_fingerprint)
            and not exists (select from agent_pending_keys key where key.key_fingerprint = old.key_fingerprint)
          limit ${maxAtOnce})`;
    } while (forgotten.count === maxAtOnce);
  }

  return {
    start() {
      stopRepeating = repeat(deps.clock, intervalMs, forget, (error) =>
        deps.logError(error, 'old keys of v1 could not be forgotten'),
      );
    },
    stop: () => stopRepeating(),
  };
}
