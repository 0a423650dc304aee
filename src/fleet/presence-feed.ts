import { type Backlog, createBacklog } from '../bus/backlog.ts';
import type { Bus } from '../bus/bus.ts';
import { endable } from '../bus/endable.ts';
import { type Clock, type Poll, poll } from '../clock.ts';
import type { Database } from '../db/database.ts';
import type { PresenceChange } from './agent.ts';

/** Who comes and goes, at every gateway: as the bus tells it, and as the database has it where no hint came. */
export interface PresenceFeed {
  /** What changes from the first `next` on, until `signal` aborts. Throws SLOW_CONSUMER where the reader falls far behind. */
  follow(signal: AbortSignal): AsyncIterableIterator<PresenceChange>;
}

const maxWaiting = 100_000;
const pollIntervalMs = 1_000;
const pageSize = 1_000;
/** So much later than it happened a change may be committed. */
const commitMs = 10_000;
/** So long it is known what was told, which is longer than the database is asked about. */
const rememberMs = 60_000;

export function createPresenceFeed(deps: {
  readonly database: Pick<Database, 'sql' | 'embedded'>;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly logError: (error: unknown, context: string) => void;
}): PresenceFeed {
  const { bus, clock } = deps;
  const { sql, embedded } = deps.database;
  const followers = new Set<Backlog<PresenceChange>>();
  /** By agent: what is known last, and since when, the oldest first. */
  let told = new Map<string, { readonly rank: number; readonly connected: boolean; readonly atMs: number }>();
  /** By the database's clock, when somebody began to listen: what happened before is no news. Null until the first look. */
  let start: string | null = null;
  /** The same, before which everything has been told. */
  let since: string | null = null;
  let looking: Poll | null = null;

  /** Later links count for more than earlier ones, and for one link that it went for more than that it came. */
  function tell(change: PresenceChange): void {
    const rank = 2 * change.epoch + (change.connected ? 0 : 1);
    const before = told.get(change.agentUid);
    if (rank <= (before?.rank ?? -1)) return;
    told.delete(change.agentUid);
    told.set(change.agentUid, { rank, connected: change.connected, atMs: performance.now() });
    // A newer link that took over is in the database with the time at which the agent came.
    if (before?.connected === change.connected) return;
    for (const backlog of followers) backlog.offer(change);
  }

  async function look(): Promise<void> {
    forget();
    let after: { at: string | null; agentUid: string } = { at: since, agentUid: '' };
    let next: string | null = null;
    for (;;) {
      const rows = await page(after.at, after.agentUid);
      next ??= rows[0]?.floor ?? null;
      for (const { agentUid, epoch, connected, at, reason } of rows)
        if (agentUid !== null) tell({ agentUid, epoch, connected, at: new Date(at), reason });
      const last = rows.at(-1);
      if (rows.length < pageSize || !last || last.agentUid === null) break;
      after = { at: last.at, agentUid: last.agentUid };
    }
    start ??= next;
    since = next;
  }

  /** One row at least, if only with the time before which everything is committed by now. */
  async function page(at: string | null, agentUid: string) {
    return await sql<
      {
        floor: string;
        agentUid: string | null;
        epoch: number;
        connected: boolean;
        at: string;
        reason: string | null;
      }[]
    >`
      select greatest(now() - ${commitMs} * interval '1 millisecond', coalesce(${start}::timestamptz, now()))::text as floor, change.* from (select) as always left join lateral (
        select agent_id as "agentUid", epoch, is_active as connected, presence_at::text as at, presence_reason as reason
        from agent_connections where (presence_at, agent_id) > (coalesce(${at}::timestamptz, now()), ${agentUid})
        order by presence_at, agent_id limit ${pageSize}
      ) as change on true`;
  }

  function forget(): void {
    const oldestMs = performance.now() - rememberMs;
    for (const [agentUid, { atMs }] of told) {
      if (atMs >= oldestMs) break;
      told.delete(agentUid);
    }
  }

  function enter(backlog: Backlog<PresenceChange>): void {
    followers.add(backlog);
    // An embedded database has one gateway, which hears itself.
    if (embedded || looking) return;
    looking = poll(clock, pollIntervalMs, look, (error) => deps.logError(error, 'who came and went could not be read'));
    looking.now();
  }

  function leave(backlog: Backlog<PresenceChange>): void {
    followers.delete(backlog);
    if (followers.size > 0) return;
    looking?.stop();
    looking = null;
    start = null;
    since = null;
    told = new Map();
  }

  bus.subscribe('presence', (change) => {
    if (followers.size > 0) tell(change);
  });
  bus.subscribe('missed', () => looking?.now());

  return {
    follow: (signal) =>
      endable(signal, async function* (ending) {
        const backlog = createBacklog<PresenceChange>({ maxItems: maxWaiting });
        ending.addEventListener('abort', backlog.end);
        enter(backlog);
        try {
          for (let change = await backlog.next(); change; change = await backlog.next()) yield change;
        } finally {
          leave(backlog);
        }
      }),
  };
}
