import { describe, expect, it } from 'vitest';
import { createMemoryStore } from '../../../src/agent-client/v2/index.ts';
import { nativeCrypto } from '../../../src/agent-client/v2/node/index.ts';
import { keyFingerprint } from '../../../src/agent-gateway/crypto/v2-schedule.ts';
import { eventually } from '../../support/eventually.ts';
import { useStage } from './stage.ts';

const stage = useStage();
const otherKey = nativeCrypto.signingKeyFromSeed(new Uint8Array(32).fill(8));
const fingerprint = (key: { readonly publicKey: Uint8Array }) => keyFingerprint(nativeCrypto, key.publicKey);

describe('pins', () => {
  it('let the agent talk to a gateway that it knows by fingerprint, in capitals too, or by key', async () => {
    const { peer, start } = stage();
    for (const pin of [peer.fingerprint.toUpperCase(), peer.key.publicKey]) {
      const { agent } = await start({ pins: [fingerprint(otherKey), pin] });
      await agent.ready();
    }
  });

  it('keep it from naming itself to another', async () => {
    const { peer, start } = stage();
    const { ended } = await start({ pins: [fingerprint(otherKey)] });
    expect(await ended()).toMatchObject({ code: 4001, reason: 'M2: unknown-gateway-key', returnsInMs: 1_000 });
    expect(peer.opened.count).toBe(0);
  });

  it.each([[[]], [['ab'.repeat(31)]], [['xy'.repeat(32)]], [[new Uint8Array(32)]]])('are refused: %j', async (pins) => {
    await expect(stage().start({ pins })).rejects.toMatchObject({ code: 'OPTIONS_INVALID' });
  });

  it('are made of the first gateway that answers where that is asked for, and of no other afterwards', async () => {
    const { peer, start } = stage();
    const store = createMemoryStore();
    const first = await start({ pins: 'trust-first', store });
    await first.agent.ready();
    await first.agent.close();
    peer.key = otherKey;
    const second = await start({ pins: 'trust-first', store });
    expect(await second.ended()).toMatchObject({ code: 4001, reason: 'M2: unknown-gateway-key' });
  });

  it('become those that the session tells, and the key of the session', async () => {
    const { peer, start } = stage();
    const store = createMemoryStore();
    peer.nextKey = otherKey;
    const { agent } = await start({ store });
    await agent.ready();
    const pins = [peer.fingerprint, fingerprint(otherKey)];
    await agent.close();
    expect((await store.open()).identity?.pins).toEqual(pins);
    peer.key = otherKey;
    const later = await start({ store, pins: pins.slice(0, 1) });
    await later.agent.ready();
  });

  it('follow the gateway when it tells of new keys inside a session, stored before that is acknowledged', async () => {
    const { peer, start } = stage();
    const store = createMemoryStore();
    const { agent, statuses } = await start({ store });
    await agent.ready();
    const { current, next } = {
      current: Buffer.from(peer.key.publicKey).toString('base64url'),
      next: Buffer.from(otherKey.publicKey).toString('base64url'),
    };
    const link = await peer.opened.next();
    link.say({ id: 'keys', type: 'event', channel: 'session', payload: { op: 'keys', current, next } });
    await peer.next(({ headers }) => headers.ackFor.includes('keys'));
    expect(await statuses.next(({ type }) => type === 'pinned')).toMatchObject({
      pins: [peer.fingerprint, fingerprint(otherKey)],
    });
    expect((await store.open()).identity?.pins).toHaveLength(2);
  });

  it('begin anew where the configuration names others', async () => {
    const { peer, start } = stage();
    const store = createMemoryStore();
    await (await start({ store })).agent.close();
    peer.key = otherKey;
    const { agent } = await start({ store, pins: [fingerprint(otherKey)] });
    await agent.ready();
  });
});

describe('an agent whose link ends', () => {
  it.each([
    ['with 1012', 1012, '', 2_500],
    ['with 1012 and a time', 1012, 'retry-after=20', 30_000],
    ['with 1013 and a time', 1013, 'retry-after=20', 30_000],
    ['with 1013', 1013, '', 500],
    ['with 4003', 4003, '', 500],
    ['with 4004', 4004, '', 90_000],
    ['with 4005', 4005, '', 500],
    ['with 4029', 4029, '', 500],
    ['with 1001', 1001, '', 500],
  ])('%s comes back after its time, not before', async (_, code, reason, delayMs) => {
    const { peer, clock, start } = stage();
    const { agent, ended } = await start();
    await agent.ready();
    (await peer.opened.next()).close(code, reason);
    expect(await ended()).toMatchObject({ code, reason, returnsInMs: delayMs });
    clock.advance(delayMs - 1);
    expect([agent.state, peer.upgrades.count]).toEqual(['waiting', 1]);
    clock.advance(1);
    await agent.ready();
    expect(peer.upgrades.count).toBe(2);
  });

  it('says so where it was revoked, or another process has its key', async () => {
    const { peer, start } = stage();
    const { agent, statuses, cameBack } = await start();
    await agent.ready();
    (await peer.opened.next()).close(4003);
    await statuses.next(({ type }) => type === 'revoked');
    await cameBack();
    (await peer.opened.next()).close(4004);
    await statuses.next(({ type }) => type === 'superseded');
  });

  it('backs off with each attempt that comes to nothing, up to a bound, and begins anew after a session', async () => {
    const { peer, clock, start } = stage();
    peer.script.upgrade = { status: 500 };
    const { agent, cameBack, ended } = await start();
    const delays: (number | null)[] = [];
    for (let attempt = 1; attempt < 8; attempt++) delays.push((await cameBack()).returnsInMs);
    const { returnsInMs } = await ended();
    delays.push(returnsInMs);
    expect(delays).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
    peer.script.upgrade = null;
    clock.advance(returnsInMs ?? 0);
    await agent.ready();
    expect(agent.statistics).toMatchObject({ links: 1, failedAttempts: 8 });
    (await peer.opened.next()).terminate();
    expect(await cameBack()).toMatchObject({ returnsInMs: 500 });
  });

  it('waits as long as a 503 says, and up to as much again', async () => {
    const { peer, start } = stage();
    peer.script.upgrade = { status: 503, headers: 'Retry-After: 40\r\n' };
    const { ended } = await start();
    expect(await ended()).toMatchObject({ httpStatus: 503, reason: 'HTTP 503', returnsInMs: 60_000 });
  });

  it('asks less and less often where it stays revoked: hourly in the end', async () => {
    const { peer, start } = stage();
    peer.script.refusesWith = 4003;
    const { cameBack } = await start();
    let last: number | null = 0;
    for (let attempt = 0; attempt < 15; attempt++) last = (await cameBack()).returnsInMs;
    expect(last).toBe(1_800_000);
  });
});

describe('an attempt', () => {
  it('is given up where nobody answers the dial in time', async () => {
    const { peer, clock, start } = stage();
    peer.script.holdsUpgrades = true;
    const { ended } = await start();
    await peer.upgrades.next();
    clock.advance(10_000);
    expect(await ended()).toMatchObject({ reason: 'the dial timed out' });
  });

  it('is given up where no session comes in time', async () => {
    const { peer, clock, start } = stage();
    peer.script.holdsGrants = true;
    const { ended } = await start();
    await eventually(() => peer.proofs === 1);
    clock.advance(14_999);
    peer.script.holdsGrants = false;
    clock.advance(1);
    expect(await ended()).toMatchObject({ reason: 'the handshake timed out' });
  });

  it.each([false, 'aegis.v3'] as const)('ends where the gateway chooses the subprotocol %s', async (subprotocol) => {
    const { peer, start } = stage();
    peer.script.subprotocol = subprotocol;
    const { ended } = await start();
    expect(await ended()).toMatchObject({ code: 1006, returnsInMs: 1_000 });
    expect(peer.proofs).toBe(0);
  });

  it('that cannot even be dialled comes to nothing, and is made again', async () => {
    const { peer, start } = stage();
    const { cameBack } = await start({ url: `${peer.url}#fragment` });
    expect((await cameBack()).returnsInMs).toBe(1_000);
    expect((await cameBack()).returnsInMs).toBe(2_000);
  });

  it('ends where it is to be bound to a TLS connection that there is not', async () => {
    const { peer, start } = stage();
    const { ended } = await start({ bindsChannel: true });
    expect(await ended()).toMatchObject({ reason: 'the connection has no exporter to bind to' });
    expect(peer.proofs).toBe(0);
  });

  it('ends where the epoch is lower than one that the agent had, and not where it is the same', async () => {
    const { peer, start } = stage();
    const store = createMemoryStore();
    peer.script.grant = { epoch: 50 };
    await (await start({ store })).agent.ready();
    peer.script.grant = { epoch: 49 };
    const { ended } = await start({ store });
    expect(await ended()).toMatchObject({ reason: expect.stringContaining('EPOCH_LOWER'), returnsInMs: 1_000 });
    peer.script.grant = { epoch: 50 };
    await (await start({ store })).agent.ready();
  });

  it('tells of the host until the agent was let in with it, and again when there is news', async () => {
    const { peer, start } = stage();
    const store = createMemoryStore();
    for (const options of [{ enrollmentToken: 'tok' }, { enrollmentToken: 'tok' }, { host: { agentVersion: '2' } }]) {
      const { agent } = await start({ store, ...options });
      await agent.ready();
      await agent.close();
    }
    const told = peer.opened.entries.map(({ agent }) => agent.identity.enroll);
    expect(told).toMatchObject([{ token: 'tok', hostId: 'host-1' }, {}, { token: null, agentVersion: '2' }]);
    expect(told[1]).toBeNull();
  });

  it('is made with the same key each time, and with that of the store after a restart', async () => {
    const { peer, start } = stage();
    const store = createMemoryStore();
    for (let process = 0; process < 2; process++) {
      const { agent } = await start({ store });
      await agent.ready();
      await agent.close();
    }
    const [first, second] = peer.opened.entries.map(({ agent }) => Buffer.from(agent.publicKey).toString('hex'));
    expect(first).toBe(second);
    await expect(start({ store, agentId: 'host-2' })).rejects.toMatchObject({ code: 'OPTIONS_INVALID' });
  });
});

describe('a session', () => {
  it('is followed by another link between 80 and 90 % of its time, over which everything is sent from then on', async () => {
    const { peer, clock, start } = stage();
    peer.script.grant = { serverTimeMs: 0, expiresAtMs: 1_000_000, heartbeatMs: 10_000_000 };
    const { agent, statuses } = await start();
    await agent.ready();
    peer.script.acknowledges = false;
    const reports = [agent.report('logs', {}, { id: 'before' })];
    const { link: old } = await peer.next(({ id }) => id === 'before');
    peer.script.grant = { ...peer.script.grant, limits: { ...old.grant.limits, ackTimeoutMs: 10_000_000 } };
    old.acknowledge('nothing that was sent');
    clock.advance(29_999);
    old.acknowledge('before');
    await reports[0];
    clock.advance(849_999 - 29_999);
    expect(peer.upgrades.count).toBe(1);
    const under = agent.report('logs', {}, { id: 'under way' });
    await peer.next(({ id }) => id === 'under way');
    clock.advance(1);
    const { link: young } = await peer.next(({ id }) => id === 'under way');
    expect(young).not.toBe(old);
    const later = agent.report('logs', {}, { id: 'later' });
    expect((await peer.next(({ id }) => id === 'later')).link).toBe(young);
    // Until it is closed the old one is still read.
    old.acknowledge('under way');
    await under;
    old.close(4004, 'superseded');
    young.acknowledge('later');
    await later;
    await eventually(() => old.closeCode !== 0);
    expect(statuses.entries.map(({ type }) => type)).not.toContain('superseded');
    expect([agent.state, peer.upgrades.count]).toEqual(['open', 2]);
  });

  it('that ends while its renewal waits to be tried again is followed at once', async () => {
    const { peer, clock, start } = stage();
    peer.script.grant = { serverTimeMs: 0, expiresAtMs: 1_000_000, heartbeatMs: 10_000_000 };
    const { agent, ended, cameBack } = await start();
    await agent.ready();
    const link = await peer.opened.next();
    peer.script.upgrade = { status: 503, headers: 'Retry-After: 400\r\n' };
    clock.advance(850_000);
    expect(await ended()).toMatchObject({ httpStatus: 503, returnsInMs: 600_000 });
    expect(agent.state).toBe('open');
    peer.script.upgrade = null;
    link.close(4010);
    expect(await cameBack()).toMatchObject({ code: 4010, returnsInMs: 0 });
    await agent.ready();
  });

  it('that is used up is followed at once, and one that ends as soon as it began is not', async () => {
    const { peer, clock, start } = stage();
    const { agent, cameBack } = await start();
    await agent.ready();
    clock.advance(1_000);
    (await peer.opened.next()).close(4010);
    expect(await cameBack()).toMatchObject({ code: 4010, returnsInMs: 0 });
    await agent.ready();
    (await peer.opened.next()).close(4010);
    expect(await cameBack()).toMatchObject({ returnsInMs: 500 });
  });

  it('is kept alive by heartbeats and pings, and ends where nothing is heard', async () => {
    const { peer, clock, start } = stage();
    const { agent, ended } = await start();
    await agent.ready();
    const link = await peer.opened.next();
    clock.advance(29_999);
    clock.advance(1);
    await peer.next(({ type, channel }) => type === 'heartbeat' && channel === 'agent.heartbeat');
    await eventually(() => link.pings.length === 1);
    link.stopReading();
    clock.advance(64_999);
    clock.advance(1);
    expect(await ended()).toMatchObject({ code: 4008 });
  });

  it('changes the key of its records when that is old, and not before', async () => {
    const { peer, clock, start } = stage();
    peer.script.grant = { heartbeatMs: 10_000_000 };
    const { agent } = await start({ timings: { rekeyAfterMs: 5_000 } });
    clock.advance(0);
    await agent.ready();
    const link = await peer.opened.next();
    clock.advance(4_999);
    await agent.report('logs', 1);
    expect(link.generation).toBe(0);
    clock.advance(1);
    await agent.report('logs', 2);
    expect([link.generation, agent.statistics.rekeys]).toEqual([1, 1]);
    await agent.report('logs', 3);
    expect(link.generation).toBe(1);
  });

  it.each([
    ['text', 'hello'],
    ['a record that does not open', new Uint8Array(200).fill(2)],
  ])('ends with 4009 where %s comes, and the agent comes back', async (_, frame) => {
    const { peer, start } = stage();
    const { agent, cameBack } = await start();
    await agent.ready();
    const link = await peer.opened.next();
    link.sendRaw(frame);
    expect(await cameBack()).toMatchObject({ code: 4009 });
    expect((await peer.closed.next()).closeCode).toBe(4009);
    await agent.ready();
  });
});

describe('a new key', () => {
  /** Answers the next request for one. */
  async function answer(accepts: boolean): Promise<void> {
    const { peer } = stage();
    const { link, message } = await peer.next(({ type }) => type === 'request');
    if (!accepts) return link.refuse([message.id], { code: 'KEY_CONFLICT', retryable: false });
    link.say({
      id: 'agreed',
      type: 'response',
      channel: 'session',
      headers: { replyTo: message.id },
      payload: { op: 'rotated' },
    });
    await peer.next(({ headers }) => headers.ackFor.includes('agreed'));
  }

  it('is the agent’s once the gateway has agreed, and used at once', async () => {
    const { peer, start } = stage();
    const { agent } = await start();
    await agent.ready();
    const before = agent.publicKey;
    const rotated = agent.rotateKey();
    await answer(true);
    await rotated;
    expect(agent.publicKey).not.toEqual(before);
    await peer.opened.next();
    const { agent: proven } = await peer.opened.next();
    expect(proven.publicKey).toEqual(agent.publicKey);
  });

  it('is given up where the gateway refuses it', async () => {
    const { peer, start } = stage();
    const { agent } = await start();
    await agent.ready();
    const before = agent.publicKey;
    const refused = expect(agent.rotateKey()).rejects.toMatchObject({ code: 'KEY_CONFLICT' });
    await answer(false);
    await refused;
    expect([agent.publicKey, peer.opened.count]).toEqual([before, 1]);
  });

  it('is asked for again, the same one, with the old key, where the answer was lost: over a restart, too', async () => {
    const { peer, start } = stage();
    const store = createMemoryStore();
    const first = await start({ store });
    await first.agent.ready();
    const lost = expect(first.agent.rotateKey()).rejects.toMatchObject({ code: 'AGENT_CLOSED' });
    const asked = await peer.next(({ type }) => type === 'request');
    asked.link.terminate();
    await first.cameBack();
    const again = await peer.next(({ type }) => type === 'request');
    await first.agent.close();
    await lost;
    const second = await start({ store });
    const third = peer
      .next(({ type }) => type === 'request')
      .then((heard) => {
        const { message, link } = heard;
        link.say({
          type: 'response',
          channel: 'session',
          headers: { replyTo: message.id },
          payload: { op: 'rotated' },
        });
        return heard;
      });
    const key = (payload: unknown) => (payload as { key: string }).key;
    const keys = [asked, again, await third].map(({ message }) => key(message.payload));
    expect(new Set(keys).size).toBe(1);
    expect(new Set(peer.opened.entries.map(({ agent }) => Buffer.from(agent.publicKey).toString('hex'))).size).toBe(1);
    await eventually(() => Buffer.from(second.agent.publicKey).toString('base64url') === keys[0]);
  });
});
