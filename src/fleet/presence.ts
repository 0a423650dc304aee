import type { Fragment } from 'postgres';
import type { Bus } from '../bus/bus.ts';
import { type Clock, repeat } from '../clock.ts';
import type { Database } from '../db/database.ts';
import type { WallClock } from '../wall-clock.ts';

/**
 * Who is connected where. An instance holds a lease and renews it; its agents are connected while the lease runs and their
 * connection is active. When agents were last heard is written in batches, never once a message.
 */
export interface Presence {
  /** Takes the lease. An embedded database has one gateway, so every other lease in it is a dead one's. */
  start(): Promise<void>;
  came(agentUid: string, epoch: number): void;
  seen(agentUid: string, epoch: number): void;
  /** Resolves when it is written, which the next renewal does where the database fails. */
  left(agentUid: string, epoch: number, reason: string): Promise<void>;
  readonly holdsLease: boolean;
  /** Whether instances of another family held a lease when this one was last renewed. */
  readonly hasOthers: boolean;
  /** Instances that hold a lease and of which the bus has brought nothing for two renewals: they hear of news by polling. */
  readonly unheard: readonly string[];
  onOwnershipLost(listener: (agentUid: string, epoch: number) => void): void;
  /** Gives up the lease; every agent of this instance is disconnected from then on. */
  stop(): Promise<void>;
}

/** A link that is gone and not written off yet. */
interface Departure {
  readonly agentUid: string;
  readonly epoch: number;
  readonly reason: string;
  readonly written: () => void;
}

export const leaseMs = 15_000;
const renewIntervalMs = 5_000;
const sweepIntervalMs = 1_000;
const maxDeparturesAtOnce = 1_000;
/** How far the times of two gateways may be apart while none forgets a nonce that the other would still take. */
const nonceMarginMs = 60_000;
const lostReason = 'its gateway was lost';

export function createPresence(deps: {
  readonly database: Database;
  readonly bus: Bus;
  readonly clock: Clock;
  /** What time it is; told how late it is by the database's clock with each renewal. */
  readonly wall: Pick<WallClock, 'now' | 'compare'>;
  readonly instanceId: string;
  /** What the ids of instances begin with that stop together with this one; its own id where absent. */
  readonly family?: string;
  readonly version: string;
  readonly sessionTimeoutMs: number;
  /** Called when there come to be instances that the bus brings nothing of. */
  readonly onUnheard?: (instances: readonly string[]) => void;
  readonly logError: (error: unknown, context: string) => void;
}): Presence {
  const { bus, clock, wall, instanceId } = deps;
  const { sql } = deps.database;
  const listeners: ((agentUid: string, epoch: number) => void)[] = [];
  let heard = new Map<string, number>();
  let departures: Departure[] = [];
  let isWritingDepartures = false;
  const releases: (() => void)[] = [];
  let leaseEndsAtMs = 0;
  let hasOthers = false;
  /** Instances of which nothing had been heard at the last renewal, and those of which that was so at the one before, too. */
  let silent: readonly string[] = [];
  let unheard: readonly string[] = [];

  async function renewLease(): Promise<void> {
    const askedAtMs = performance.now();
    const [renewed] = await sql<{ others: string[]; atMs: number }[]>`
      insert into instances (id, version, lease_until)
      values (${instanceId}, ${deps.version}, now() + ${leaseMs} * interval '1 millisecond')
      on conflict (id) do update set lease_until = excluded.lease_until
      returning array(select other.id from instances other where other.id <> ${instanceId} and other.lease_until > now()) as others,
        (extract(epoch from clock_timestamp()) * 1000)::float8 as "atMs"`;
    if (renewed) wall.compare(renewed.atMs, askedAtMs, performance.now());
    const others = renewed?.others ?? [];
    hasOthers = others.some((id) => !id.startsWith(deps.family ?? instanceId));
    compareWithBus(others);
    // From before the question: the database counts from some moment after it.
    leaseEndsAtMs = askedAtMs + leaseMs;
  }

  function compareWithBus(others: readonly string[]): void {
    const peers = new Set(bus.peers);
    const before = unheard;
    const silentNow = others.filter((id) => !peers.has(id));
    unheard = silentNow.filter((id) => silent.includes(id));
    silent = silentNow;
    if (unheard.length > 0 && before.length === 0) deps.onUnheard?.(unheard);
  }

  /** v1 sessions renew by themselves: closing a v1 link would make its agent flap (requirements.md, "Trust"). */
  async function writeLastSeen(): Promise<void> {
    if (heard.size === 0) return;
    const batch = [...heard];
    heard = new Map();
    const rows = await sql<{ agent_id: string }[]>`
      with heard as (
        select uid, heard.epoch from unnest(${batch.map(([uid]) => uid)}::text[], ${batch.map(([, epoch]) => epoch)}::bigint[])
          as heard (uid, epoch) join agent_connections on agent_id = uid order by uid for update of agent_connections
      )
      update agent_connections connection set last_seen = now(), session_expires_at =
        case when protocol = 'v1' then greatest(session_expires_at, now() + ${deps.sessionTimeoutMs} * interval '1 millisecond')
        else session_expires_at end
      from heard
      where agent_id = heard.uid and connection.epoch = heard.epoch and is_active
      returning agent_id`;
    const owned = new Set(rows.map((row) => row.agent_id));
    for (const [uid, epoch] of batch) if (!owned.has(uid)) for (const listener of listeners) listener(uid, epoch);
  }

  /**
   * Thousands of links can end at once: those that do while one statement runs go into the next one. Rows are locked in
   * order, so that this and the writing of `last_seen` cannot block each other for ever.
   */
  async function writeDepartures(): Promise<void> {
    if (isWritingDepartures) return;
    isWritingDepartures = true;
    try {
      while (departures.length > 0) {
        const batch = departures.slice(0, maxDeparturesAtOnce);
        const rows = await sql<{ agent_id: string; epoch: number }[]>`
          with departed as (
            select agent_id, reason from agent_connections connection
              join unnest(${batch.map(({ agentUid }) => agentUid)}::text[], ${batch.map(({ epoch }) => epoch)}::bigint[],
                ${batch.map(({ reason }) => reason)}::text[]) as gone (uid, epoch, reason) on connection.agent_id = gone.uid and connection.epoch = gone.epoch
            where is_active order by agent_id for update of connection
          )
          update agent_connections connection set is_active = false, last_seen = now(), updated_at = now(),
            presence_at = now(), presence_reason = departed.reason
          from departed where connection.agent_id = departed.agent_id
          returning connection.agent_id, connection.epoch`;
        departures = departures.slice(batch.length);
        const reasons = new Map(batch.map(({ agentUid, reason }) => [agentUid, reason]));
        for (const { agent_id, epoch } of rows) announce(agent_id, epoch, false, reasons.get(agent_id) ?? null);
        for (const { written } of batch) written();
      }
    } finally {
      isWritingDepartures = false;
    }
  }

  /** Disconnects the agents of instances that are no more, for consumers to see. */
  async function disconnectWhere(isGone: Fragment, reason: string): Promise<void> {
    const rows = await sql<{ agent_id: string; epoch: number }[]>`
      update agent_connections set is_active = false, updated_at = now(), presence_at = now(),
        presence_reason = ${reason}
      where is_active and ${isGone}
      returning agent_id, epoch`;
    for (const { agent_id, epoch } of rows) announce(agent_id, epoch, false, reason);
  }

  /** Of instances whose lease ran out. */
  function sweep(): Promise<void> {
    return disconnectWhere(
      sql`instance_id = any(array(select id from instances where lease_until <= now()))`,
      lostReason,
    );
  }

  async function clearAway(): Promise<void> {
    await sql`delete from instances where lease_until < now() - interval '1 hour'`;
    await sql`delete from auth_nonces where nonce in (
      select nonce from auth_nonces where expires_at < now() - ${nonceMarginMs} * interval '1 millisecond' limit 10000)`;
    await sql`delete from registrations where id in (
      select id from registrations where expires_at < now() limit 10000)`;
  }

  function announce(agentUid: string, epoch: number, connected: boolean, reason: string | null): void {
    bus.publish('presence', { agentUid, epoch, connected, at: new Date(wall.now()), reason });
  }

  async function renew(): Promise<void> {
    await renewLease();
    await writeDepartures();
    await writeLastSeen();
    await clearAway();
  }

  return {
    async start() {
      if (deps.database.embedded) await sql`update instances set lease_until = now() where lease_until > now()`;
      await renewLease();
      await sweep();
      await disconnectWhere(sql`instance_id not in (select id from instances)`, lostReason);
      releases.push(
        repeat(clock, renewIntervalMs, renew, (error) =>
          deps.logError(error, 'the lease of this instance could not be renewed'),
        ),
        repeat(clock, sweepIntervalMs, sweep, (error) =>
          deps.logError(error, 'agents of lost instances could not be disconnected'),
        ),
      );
    },
    came: (agentUid, epoch) => announce(agentUid, epoch, true, null),
    seen(agentUid, epoch) {
      heard.set(agentUid, epoch);
    },
    left(agentUid, epoch, reason) {
      return new Promise((written) => {
        departures.push({ agentUid, epoch, reason, written });
        // What fails is written with the next renewal.
        writeDepartures().catch((error) => deps.logError(error, 'departures could not be written'));
      });
    },
    get holdsLease() {
      return performance.now() < leaseEndsAtMs;
    },
    get hasOthers() {
      return hasOthers;
    },
    get unheard() {
      return unheard;
    },
    onOwnershipLost: (listener) => void listeners.push(listener),
    async stop() {
      for (const release of releases) release();
      // First, so that whoever dies in between has left nobody whose gateway is unknown.
      await disconnectWhere(sql`instance_id = ${instanceId}`, 'its gateway stopped');
      await sql`delete from instances where id = ${instanceId}`;
    },
  };
}
