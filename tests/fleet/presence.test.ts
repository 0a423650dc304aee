import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Bus } from '../../src/bus/bus.ts';
import { createMemoryBus } from '../../src/bus/memory-bus.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import type { PresenceChange } from '../../src/fleet/agent.ts';
import { createFleet } from '../../src/fleet/create-fleet.ts';
import { createPresence, leaseMs, type Presence } from '../../src/fleet/presence.ts';
import { createWallClock } from '../../src/wall-clock.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { eventually } from '../support/eventually.ts';
import { insertAgent, insertInstance } from './agents.ts';

const everything = { orgId: null };
/** Renews a hundred times as often. */
const hastyClock: Clock = { ...systemClock, every: (intervalMs, task) => systemClock.every(intervalMs / 100, task) };

describe.each(engines)('presence on %s', (engine) => {
  let open: EngineDatabase;
  let bus: Bus;
  let changes: PresenceChange[];
  const running: Presence[] = [];

  beforeAll(async () => {
    open = await openEngine(engine);
  });
  afterAll(() => open.close());
  beforeEach(() => {
    changes = [];
    bus = createMemoryBus(() => {});
    bus.subscribe('presence', (change) => changes.push(change));
  });
  afterEach(async () => {
    for (const presence of running.splice(0)) await presence.stop();
  });

  async function start(
    instanceId: string,
    clock: Clock = hastyClock,
    wall = createWallClock(clock),
  ): Promise<Presence> {
    const presence = createPresence({
      ...{ database: open.database, bus, clock, wall, instanceId, version: '1.0.0' },
      sessionTimeoutMs: 3_600_000,
      logError: (error) => {
        throw error;
      },
    });
    running.push(presence);
    await presence.start();
    return presence;
  }
  const agentOf = (instance: string, epoch = 7) => insertAgent(open.database, { connectedTo: instance, epoch });
  const connection = async (uid: string) =>
    (
      await open.database
        .sql`select *, last_seen > now() - interval '5 seconds' as is_recent from agent_connections where agent_id = ${uid}`
    )[0];
  const ofAgent = (uid: string) => changes.filter(({ agentUid }) => agentUid === uid);

  const fleetPart = () =>
    createFleet({
      ...{ database: open.database, bus, clock: systemClock },
      logError: () => {},
      defaultOrg: 'default-org',
    });

  it('disconnects the agents of an instance whose lease ran out, and tells it once', async () => {
    const [lost, own] = [`lost-${randomUUID()}`, `own-${randomUUID()}`];
    const presence = await start(own);
    await insertInstance(open.database, lost, 3_600_000);
    const [theirs, ours] = [await agentOf(lost), await agentOf(own)];
    const fleet = fleetPart();
    expect((await fleet.find(everything, theirs.uid))?.session).not.toBeNull();
    await open.database.sql`update instances set lease_until = now() - interval '1 second' where id = ${lost}`;
    expect((await fleet.find(everything, theirs.uid))?.session).toBeNull();
    await eventually(() => ofAgent(theirs.uid).length > 0);
    expect((await connection(theirs.uid))?.is_active).toBe(false);
    expect((await connection(ours.uid))?.is_active).toBe(true);
    const renewals = await open.database.sql`select lease_until from instances where id = ${own}`;
    await eventually(async () => {
      const [row] = await open.database.sql`select lease_until from instances where id = ${own}`;
      return row?.lease_until > renewals[0]?.lease_until;
    });
    expect(ofAgent(theirs.uid)).toMatchObject([{ connected: false, reason: 'its gateway was lost' }]);
    expect(ofAgent(ours.uid)).toEqual([]);
    expect(presence.holdsLease).toBe(true);
  });

  it('writes when agents were last heard, in one go, for the links that own them', async () => {
    const own = `own-${randomUUID()}`;
    const presence = await start(own);
    const [current, superseded] = [await agentOf(own, 7), await agentOf(own, 8)];
    await open.database
      .sql`update agent_connections set last_seen = now() - interval '1 hour' where instance_id = ${own}`;
    const lost: string[] = [];
    presence.onOwnershipLost((uid, epoch) => lost.push(`${uid} ${epoch}`));
    presence.seen(current.uid, 7);
    presence.seen(superseded.uid, 7);
    await eventually(async () => (await connection(current.uid))?.is_recent);
    expect((await connection(superseded.uid))?.is_recent).toBe(false);
    await eventually(() => lost.length > 0);
    expect(lost).toEqual([`${superseded.uid} 7`]);
  });

  it('renews the session of a v1 agent that is heard, and none of v2, which ends when it was said to', async () => {
    const own = `own-${randomUUID()}`;
    const presence = await start(own);
    const [v1, v2] = [await agentOf(own, 7), await agentOf(own, 7)];
    const { sql } = open.database;
    await sql`update agent_connections set session_expires_at = now() - interval '1 hour', last_seen = now() - interval '1 hour',
      protocol = case when agent_id = ${v2.uid} then 'v2' else 'v1' end where instance_id = ${own}`;
    for (const { uid } of [v1, v2]) presence.seen(uid, 7);
    await eventually(async () => (await connection(v2.uid))?.is_recent);
    const rows = await sql`select protocol, session_expires_at > now() as goes_on from agent_connections
      where instance_id = ${own} order by protocol`;
    expect(rows).toMatchObject([
      { protocol: 'v1', goes_on: true },
      { protocol: 'v2', goes_on: false },
    ]);
  });

  it.each([3_600_000, -3_600_000])(
    'keeps nonces by the database, with a clock that is %i ms ahead',
    async (aheadMs) => {
      const wall = createWallClock(systemClock, { machineMs: () => Date.now() + aheadMs });
      const { sql } = open.database;
      const nonces = [randomUUID(), randomUUID(), randomUUID()];
      await sql`insert into auth_nonces (nonce, expires_at, attempt_id)
      select nonce, now() + life * interval '1 second', gen_random_uuid()
      from unnest(${nonces}::text[], ${[60, -30, -90]}::integer[]) as given (nonce, life)`;
      await start(`own-${randomUUID()}`, hastyClock, wall);
      const left = async () =>
        (await sql`select nonce from auth_nonces where nonce = any(${nonces})`).map((row) => row.nonce);
      await eventually(async () => !(await left()).includes(nonces[2]));
      expect((await left()).sort()).toEqual(nonces.slice(0, 2).sort());
      expect(wall.isCorrected).toBe(true);
      expect(Math.abs(wall.now() - Date.now())).toBeLessThan(5_000);
    },
  );

  it('tells that an agent left unless a newer link owns it', async () => {
    const own = `own-${randomUUID()}`;
    const presence = await start(own);
    const [gone, kept] = [await agentOf(own, 7), await agentOf(own, 8)];
    await presence.left(gone.uid, 7, 'the agent went away');
    await presence.left(kept.uid, 7, 'superseded');
    await presence.left(gone.uid, 7, 'again');
    expect(ofAgent(gone.uid)).toMatchObject([{ connected: false, reason: 'the agent went away' }]);
    expect(ofAgent(kept.uid)).toEqual([]);
    expect((await connection(kept.uid))?.is_active).toBe(true);
  });

  it('tells who comes and goes to whoever listens, and lets go of them', async () => {
    const presence = await start(`own-${randomUUID()}`);
    const fleet = fleetPart();
    const ending = new AbortController();
    const stream = fleet.presence(ending.signal)[Symbol.asyncIterator]();
    const first = stream.next();
    presence.came('someone', 7);
    expect((await first).value).toMatchObject({ agentUid: 'someone', connected: true });
    const second = stream.next();
    ending.abort();
    expect((await second).done).toBe(true);
  });

  it('gives up its lease when it stops: its agents are disconnected from then on', async () => {
    const own = `own-${randomUUID()}`;
    const presence = await start(own, systemClock);
    const { uid } = await agentOf(own);
    const fleet = fleetPart();
    expect(await fleet.instances()).toContain(own);
    await presence.stop();
    expect(await fleet.instances()).not.toContain(own);
    expect((await connection(uid))?.is_active).toBe(false);
  });

  it('knows whether other instances hold a lease', async () => {
    const { sql } = open.database;
    await sql`delete from instances`;
    const presence = await start(`own-${randomUUID()}`);
    expect(presence.hasOthers).toBe(false);
    const other = `other-${randomUUID()}`;
    await insertInstance(open.database, other, 3_600_000);
    await eventually(() => presence.hasOthers);
    await sql`update instances set lease_until = now() where id = ${other}`;
    await eventually(() => !presence.hasOthers);
  });

  it('holds its lease for no longer than the database grants it', async () => {
    const own = `own-${randomUUID()}`;
    const presence = await start(own, systemClock);
    expect(presence.holdsLease).toBe(true);
    const [row] = await open.database.sql<{ left_ms: number }[]>`
      select (extract(epoch from lease_until - now()) * 1000)::float8 as left_ms from instances where id = ${own}`;
    expect(row?.left_ms).toBeGreaterThan(leaseMs - 5_000);
    expect(row?.left_ms).toBeLessThanOrEqual(leaseMs);
  });
});
