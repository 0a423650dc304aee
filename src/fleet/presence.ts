import type { Bus } from '../bus/bus.ts';
import { type Clock, repeat } from '../clock.ts';
import type { Database } from '../db/database.ts';

/**
 * Who is connected where. An instance holds a lease and renews it; its agents are connected while the lease runs and their
 * connection is active. When agents were last heard is written in batches, never once a message.
 */
export interface Presence {
  /** Takes the lease. An embedded database has one gateway, so every other lease in it is a dead one's. */
  start(): Promise<void>;
  came(agentUid: string): void;
  seen(agentUid: string, epoch: number): void;
  left(agentUid: string, epoch: number, reason: string): Promise<void>;
  readonly holdsLease: boolean;
  onOwnershipLost(listener: (agentUid: string, epoch: number) => void): void;
  /** Gives up the lease; every agent of this instance is disconnected from then on. */
  stop(): Promise<void>;
}

export const leaseMs = 15_000;
const renewIntervalMs = 5_000;

export function createPresence(deps: {
  readonly database: Database;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly instanceId: string;
  readonly version: string;
  readonly sessionTimeoutMs: number;
  readonly logError: (error: unknown, context: string) => void;
}): Presence {
  const { bus, clock, instanceId } = deps;
  const { sql } = deps.database;
  const listeners: ((agentUid: string, epoch: number) => void)[] = [];
  let heard = new Map<string, number>();
  let stopRenewing = () => {};
  let leaseEndsAtMs = 0;

  async function renewLease(): Promise<void> {
    const askedAtMs = performance.now();
    await sql`
      insert into instances (id, version, lease_until)
      values (${instanceId}, ${deps.version}, now() + ${leaseMs} * interval '1 millisecond')
      on conflict (id) do update set lease_until = excluded.lease_until`;
    // From before the question: the database counts from some moment after it.
    leaseEndsAtMs = askedAtMs + leaseMs;
  }

  /** v1 sessions renew by themselves: closing a v1 link would make its agent flap (requirements.md, "Trust"). */
  async function writeLastSeen(): Promise<void> {
    if (heard.size === 0) return;
    const batch = [...heard];
    heard = new Map();
    const rows = await sql<{ agent_id: string }[]>`
      update agent_connections connection set last_seen = now(), session_expires_at =
        case when protocol = 'v1' then greatest(session_expires_at, now() + ${deps.sessionTimeoutMs} * interval '1 millisecond')
        else session_expires_at end
      from unnest(${batch.map(([uid]) => uid)}::text[], ${batch.map(([, epoch]) => epoch)}::bigint[]) as heard (uid, epoch)
      where agent_id = heard.uid and connection.epoch = heard.epoch and is_active
      returning agent_id`;
    const owned = new Set(rows.map((row) => row.agent_id));
    for (const [uid, epoch] of batch) if (!owned.has(uid)) for (const listener of listeners) listener(uid, epoch);
  }

  /** Disconnects the agents of instances whose lease ran out, for consumers to see. */
  async function sweep(): Promise<void> {
    const rows = await sql<{ agent_id: string }[]>`
      update agent_connections set is_active = false, updated_at = now() where is_active and not exists (
        select from instances where instances.id = instance_id and lease_until > now())
      returning agent_id`;
    for (const row of rows) announce(row.agent_id, false, 'its gateway was lost');
    await sql`delete from instances where lease_until < now() - interval '1 hour'`;
    await sql`delete from auth_nonces where nonce in (
      select nonce from auth_nonces where expires_at < now() limit 10000)`;
    await sql`delete from registrations where id in (
      select id from registrations where expires_at < now() limit 10000)`;
  }

  function announce(agentUid: string, connected: boolean, reason: string | null): void {
    bus.publish('presence', { agentUid, connected, at: new Date(clock.now()), reason });
  }

  async function renew(): Promise<void> {
    await renewLease();
    await writeLastSeen();
    await sweep();
  }

  return {
    async start() {
      if (deps.database.embedded) await sql`delete from instances`;
      await renewLease();
      await sweep();
      stopRenewing = repeat(clock, renewIntervalMs, renew, (error) =>
        deps.logError(error, 'the lease of this instance could not be renewed'),
      );
    },
    came: (agentUid) => announce(agentUid, true, null),
    seen(agentUid, epoch) {
      heard.set(agentUid, epoch);
    },
    async left(agentUid, epoch, reason) {
      const result = await sql`
        update agent_connections set is_active = false, last_seen = now(), updated_at = now()
        where agent_id = ${agentUid} and epoch = ${epoch} and is_active`;
      if (result.count > 0) announce(agentUid, false, reason);
    },
    get holdsLease() {
      return performance.now() < leaseEndsAtMs;
    },
    onOwnershipLost: (listener) => void listeners.push(listener),
    async stop() {
      stopRenewing();
      await sql`delete from instances where id = ${instanceId}`;
      await sql`update agent_connections set is_active = false where instance_id = ${instanceId} and is_active`;
    },
  };
}
