import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Changer } from '../../src/audit/actor.ts';
import { createMemoryBus } from '../../src/bus/memory-bus.ts';
import { systemClock } from '../../src/clock.ts';
import type { AgentFilter } from '../../src/fleet/agent.ts';
import { createFleet } from '../../src/fleet/create-fleet.ts';
import type { Fleet } from '../../src/fleet/fleet.ts';
import type { PageRequest } from '../../src/paging.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { changerOf } from '../support/changer.ts';
import { walkPages } from '../walk-pages.ts';
import { fingerprintOf, type GivenAgent, insertAgent, insertInstance, newKey } from './agents.ts';

const everything = changerOf(null);
const notFound = expect.objectContaining({ code: 'AGENT_NOT_FOUND' });

describe.each(engines)('the fleet on %s', (engine) => {
  let open: EngineDatabase;
  let fleet: Fleet;
  let defaultOrg: string;
  let scope: Changer;
  let hints: string[];
  let closed: string[];

  beforeAll(async () => {
    open = await openEngine(engine);
    await insertInstance(open.database, 'alive', 3_600_000);
    await insertInstance(open.database, 'dead', -1);
  });
  afterAll(() => open.close());
  beforeEach(() => {
    defaultOrg = `org-${randomUUID()}`;
    scope = changerOf(defaultOrg);
    hints = [];
    closed = [];
    const bus = createMemoryBus(() => {});
    bus.subscribe('agents', ({ agentUids }) => hints.push(...agentUids));
    bus.subscribe('disconnect', ({ agentUids, reason }) => closed.push(...agentUids.map((uid) => `${uid} ${reason}`)));
    fleet = createFleet({ database: open.database, bus, clock: systemClock, logError: () => {}, defaultOrg });
  });

  const agent = (given: GivenAgent = {}) => insertAgent(open.database, { orgId: defaultOrg, ...given });
  const named = async (filter: AgentFilter) => (await fleet.all(scope, filter)).map(({ name }) => name);

  describe('finding an agent', () => {
    it('takes a name or a uid, whatever the case of the uid', async () => {
      const { uid } = await agent({ name: 'web-1.example.com' });
      expect(await fleet.find(everything, 'web-1.example.com')).toMatchObject({
        uid,
        orgId: defaultOrg,
        session: null,
      });
      expect((await fleet.find(everything, uid))?.uid).toBe(uid);
      expect((await fleet.find(everything, uid.toUpperCase()))?.uid).toBe(uid);
      for (const ref of ['WEB-1.EXAMPLE.COM', 'web-1', '', '%', randomUUID()])
        expect(await fleet.find(scope, ref)).toBeNull();
    });

    it('takes the agent of the default organisation where several have the name, else says so', async () => {
      const name = `shared-${randomUUID()}`;
      const [one, two] = [await agent({ name, orgId: 'a' }), await agent({ name, orgId: 'b' })];
      await expect(fleet.find(everything, name)).rejects.toMatchObject({ code: 'AGENT_NAME_AMBIGUOUS' });
      expect((await fleet.find({ orgId: 'b' }, name))?.uid).toBe(two.uid);
      expect((await fleet.find(everything, one.uid))?.uid).toBe(one.uid);
      const own = await agent({ name });
      expect((await fleet.find(everything, name))?.uid).toBe(own.uid);
    });

    it("takes a uid before another agent's name that looks like it", async () => {
      const { uid } = await agent();
      const disguised = await agent({ name: uid });
      expect((await fleet.find(everything, uid))?.uid).toBe(uid);
      expect((await fleet.find(everything, disguised.uid))?.name).toBe(uid);
    });

    it('knows no agent outside the scope', async () => {
      const { uid, name } = await agent({ orgId: 'acme' });
      const foreign = changerOf('other');
      expect(await fleet.find(foreign, uid)).toBeNull();
      expect(await fleet.findAll(foreign, [uid])).toEqual([]);
      expect((await fleet.findAll(everything, [uid, uid, 'nonsense', randomUUID()])).map((each) => each.uid)).toEqual([
        uid,
      ]);
      const key = '0'.repeat(64);
      for (const work of [
        () => fleet.approve(foreign, uid),
        () => fleet.approve(foreign, name, key),
        () => fleet.revoke(foreign, uid, null),
        () => fleet.resetKey(foreign, uid),
        () => fleet.setLabels(foreign, uid, ['x'], []),
        () => fleet.setNote(foreign, uid, 'x'),
        () => fleet.setChannelActive(foreign, uid, 'agent.logs', false),
        () => fleet.disconnect(foreign, uid),
      ])
        await expect(work()).rejects.toEqual(notFound);
      expect(await fleet.find(everything, uid)).toMatchObject({ labels: [], note: null, enrollment: 'approved' });
      expect(closed).toEqual([]);
    });
  });

  describe('filters', () => {
    it('by labels: every one of them', async () => {
      await agent({ name: 'a', labels: ['web', 'eu'] });
      await agent({ name: 'b', labels: ['web'] });
      await agent({ name: 'c' });
      expect(await named({ labels: ['web'] })).toEqual(['a', 'b']);
      expect(await named({ labels: ['web', 'eu'] })).toEqual(['a']);
      expect(await named({ labels: ['we'] })).toEqual([]);
      expect(await named({ labels: [] })).toEqual(['a', 'b', 'c']);
    });

    it('by part of the name or host name, letter for letter', async () => {
      await agent({ name: 'a_100%', hostname: 'Front' });
      await agent({ name: 'ab100x', hostname: 'back\\slash' });
      expect(await named({ search: 'A_1' })).toEqual(['a_100%']);
      expect(await named({ search: '100%' })).toEqual(['a_100%']);
      expect(await named({ search: '%' })).toEqual(['a_100%']);
      expect(await named({ search: '_' })).toEqual(['a_100%']);
      expect(await named({ search: '\\' })).toEqual(['ab100x']);
      expect(await named({ search: 'fRONT' })).toEqual(['a_100%']);
      expect(await named({ search: '100' })).toEqual(['a_100%', 'ab100x']);
    });

    it('by host name and host id, exactly; an agent that never told has its name for a host id', async () => {
      await agent({ name: 'a', hostname: 'front', hostId: 'host-1' });
      await agent({ name: 'b', hostname: 'front-2' });
      expect(await named({ hostname: 'front' })).toEqual(['a']);
      expect(await named({ hostname: 'FRONT' })).toEqual([]);
      expect(await named({ hostId: 'host-1' })).toEqual(['a']);
      expect(await named({ hostId: 'a' })).toEqual([]);
      expect(await named({ hostId: 'b' })).toEqual(['b']);
    });

    it('by an address anywhere in the network, with or without its prefix length', async () => {
      await agent({ name: 'flat', network: { ip: '10.0.0.1' } });
      await agent({
        name: 'nested',
        network: { interfaces: [{ name: 'lo' }, { addresses: ['10.0.0.1/24', 'fe80::1/64'], mtu: 1500, up: true }] },
      });
      await agent({ name: 'longer', network: { ip: '10.0.0.10', list: ['10.0.0.100/24'] } });
      await agent({ name: 'text', network: '10.0.0.1' });
      await agent({ name: 'key', network: { '10.0.0.1': 'x' } });
      await agent({ name: 'none' });
      expect(await named({ ip: '10.0.0.1' })).toEqual(['flat', 'nested', 'text']);
      expect(await named({ ip: 'fe80::1' })).toEqual(['nested']);
      expect(await named({ ip: '10.0.0' })).toEqual([]);
      expect(await named({ ip: '10.0.0.10' })).toEqual(['longer']);
      expect(await named({ ip: '"; drop' })).toEqual([]);
    });

    it('by connection and protocol, counting none whose gateway is gone', async () => {
      await agent({ name: 'v1', connectedTo: 'alive' });
      await agent({ name: 'v2', connectedTo: 'alive', protocol: 'v2' });
      await agent({ name: 'lost', connectedTo: 'dead' });
      await agent({ name: 'never' });
      expect(await named({ connected: true })).toEqual(['v1', 'v2']);
      expect(await named({ connected: false })).toEqual(['lost', 'never']);
      expect(await named({ protocol: 'v2' })).toEqual(['v2']);
      expect(await named({ protocol: 'v1' })).toEqual(['v1']);
      expect(await fleet.countConnected(scope)).toBe(2);
      expect(await fleet.countConnected(scope, 'v2')).toBe(1);
      expect(await fleet.countConnected({ orgId: 'nobody' })).toBe(0);
      expect((await fleet.find(scope, 'v1'))?.session).toMatchObject({ protocol: 'v1', instance: 'alive' });
      expect((await fleet.find(scope, 'lost'))?.session).toBeNull();
      expect((await fleet.find(scope, 'lost'))?.lastSeenAt).toBeInstanceOf(Date);
      expect(await fleet.instances()).toContain('alive');
      expect(await fleet.instances()).not.toContain('dead');
    });

    it('by names and uids, by enrolment, by organisation, and by all of these together', async () => {
      const one = await agent({ name: 'one' });
      await agent({ name: 'two', enrollment: 'pending' });
      await agent({ name: 'three', labels: ['x'] });
      expect(await named({ agentRefs: [one.uid.toUpperCase(), 'two', 'nobody'] })).toEqual(['one', 'two']);
      expect(await named({ agentRefs: [] })).toEqual([]);
      expect(await named({ enrollment: 'pending' })).toEqual(['two']);
      expect(await named({ orgId: 'other' })).toEqual([]);
      expect(await named({ orgId: defaultOrg, enrollment: 'approved', search: 'o', labels: [] })).toEqual(['one']);
      expect(await fleet.count(scope, { enrollment: 'approved' })).toBe(2);
      expect(await fleet.count(scope, {})).toBe(3);
    });
  });

  describe('pages', () => {
    it('go through every agent once, forwards and backwards, however the names collate', async () => {
      const names = [
        'a',
        'A',
        'ä',
        'aa',
        'a b',
        'a-b',
        'ab',
        'Zed',
        'zed',
        '10',
        '9',
        '_x',
        'é',
        'e\u0301',
        'ß',
        'ss',
        '日本',
        '😀',
        'a.b',
        'a:b',
      ];
      for (const name of names) await agent({ name });
      const sorted = await named({});
      expect([...sorted].sort()).toEqual([...names].sort());
      const ask = (request: PageRequest) => fleet.page(scope, {}, request);
      for (const size of [1, 3, 19, 20])
        for (const backwards of [false, true]) {
          const found = await walkPages({ ask, cursorOf: fleet.cursorOf, size, backwards });
          expect(found.map(({ name }) => name)).toEqual(sorted);
        }
    });

    it('tell agents of one name in two organisations apart', async () => {
      const name = `same-${randomUUID()}`;
      for (const orgId of ['p', 'q', 'r']) await agent({ name, orgId });
      const first = await fleet.page(everything, { search: name }, { first: 1 });
      const [edge] = first.items;
      const rest = await fleet.page(everything, { search: name }, { first: 5, after: edge && fleet.cursorOf(edge) });
      expect(new Set([...first.items, ...rest.items].map(({ orgId }) => orgId))).toEqual(new Set(['p', 'q', 'r']));
    });

    it.each([
      '',
      'nonsense',
      Buffer.from('agent:').toString('base64url'),
      Buffer.from(`agent:${'-'.repeat(36)}:name`).toString('base64url'),
      Buffer.from(`agent:${randomUUID()}name`).toString('base64url'),
      Buffer.from(`agent:${randomUUID()}:na\0me`).toString('base64url'),
      Buffer.from(`event:${randomUUID()}:name`).toString('base64url'),
    ])('refuse the cursor %j', async (after) => {
      await expect(fleet.page(scope, {}, { first: 1, after })).rejects.toMatchObject({ code: 'CURSOR_INVALID' });
    });
  });

  describe('approval', () => {
    it('trusts an agent that waits, remembers its key, and tells its links', async () => {
      const { uid, publicKey } = await agent({ enrollment: 'pending' });
      expect(await fleet.countAwaitingApproval(scope)).toBe(1);
      expect(await fleet.approve(scope, uid)).toMatchObject({
        enrollment: 'approved',
        keyFingerprint: fingerprintOf(publicKey),
      });
      expect(hints).toEqual([uid]);
      expect(await fleet.countAwaitingApproval(scope)).toBe(0);
      const keys = await open.database.sql`select key_fingerprint from agent_keys where agent_uid = ${uid}`;
      expect(keys).toMatchObject([{ key_fingerprint: fingerprintOf(publicKey) }]);
    });

    it('puts a key that waits on record', async () => {
      const pendingKey = newKey();
      const { uid } = await agent({ pendingKey });
      expect(await fleet.find(scope, uid)).toMatchObject({
        pendingKeys: [{ fingerprint: fingerprintOf(pendingKey), protocol: 'v1' }],
      });
      expect(await fleet.countAwaitingApproval(scope)).toBe(1);
      expect(await fleet.approve(scope, uid, fingerprintOf(pendingKey).toUpperCase())).toMatchObject({
        keyFingerprint: fingerprintOf(pendingKey),
        pendingKeys: [],
      });
      const [row] = await open.database.sql`select public_key from agents where uid = ${uid}`;
      expect(row?.public_key).toBe(pendingKey);
    });

    it('refuses another fingerprint than the one that waits, and changes nothing', async () => {
      const pendingKey = newKey();
      const { uid, publicKey } = await agent({ pendingKey });
      await expect(fleet.approve(scope, uid, 'f'.repeat(64))).rejects.toMatchObject({ code: 'AGENT_KEY_NOT_PENDING' });
      expect(await fleet.find(scope, uid)).toMatchObject({
        keyFingerprint: fingerprintOf(publicKey),
        pendingKeys: [{ fingerprint: fingerprintOf(pendingKey) }],
      });
      const waiting = await agent({ enrollment: 'pending' });
      await expect(fleet.approve(scope, waiting.uid, 'f'.repeat(64))).rejects.toMatchObject({
        code: 'AGENT_KEY_NOT_PENDING',
      });
      expect(hints).toEqual([]);
    });

    it('changes nothing where the key is approved already', async () => {
      const { uid, publicKey } = await agent();
      expect((await fleet.approve(scope, uid)).enrollment).toBe('approved');
      expect((await fleet.approve(scope, uid, fingerprintOf(publicKey))).enrollment).toBe('approved');
      expect(hints).toEqual([]);
    });

    it('approves all that match and wait, and counts them', async () => {
      const waiting = await agent({ enrollment: 'pending', labels: ['new'] });
      const rekeyed = await agent({ pendingKey: newKey(), labels: ['new'] });
      await agent({ enrollment: 'pending', labels: ['old'] });
      await agent({ labels: ['new'] });
      await agent({ enrollment: 'revoked', pendingKey: newKey(), labels: ['new'] });
      await agent({ enrollment: 'pending', labels: ['new'], orgId: 'other' });
      expect(await fleet.approveAll(scope, { labels: ['new'] })).toBe(2);
      expect(new Set(hints)).toEqual(new Set([waiting.uid, rekeyed.uid]));
      expect(await fleet.countAwaitingApproval(scope)).toBe(1);
      expect(await fleet.approveAll(scope, { labels: ['new'] })).toBe(0);
    });

    it('is refused to a revoked agent', async () => {
      const { uid } = await agent({ enrollment: 'revoked' });
      await expect(fleet.approve(scope, uid)).rejects.toMatchObject({ code: 'AGENT_REVOKED' });
    });
  });

  it('revokes: links are closed, bootstrap tokens and a waiting key are gone', async () => {
    const { uid, publicKey } = await agent({ pendingKey: newKey() });
    const other = await agent();
    for (const each of [uid, other.uid])
      await open.database.sql`
        insert into bootstrap_tokens (token_hash, agent_uid, key_fingerprint) values (${randomUUID()}, ${each}, ${fingerprintOf(publicKey)})`;
    expect(await fleet.revoke(scope, uid, 'stolen')).toMatchObject({
      enrollment: 'revoked',
      pendingKeys: [],
    });
    expect(closed).toEqual([`${uid} AGENT_REVOKED`]);
    const tokens = await open.database
      .sql`select agent_uid from bootstrap_tokens where agent_uid in (${uid}, ${other.uid})`;
    expect(tokens).toMatchObject([{ agent_uid: other.uid }]);
    const [row] = await open.database.sql`select revoked_reason, key_reset from agents where uid = ${uid}`;
    expect(row).toMatchObject({ revoked_reason: 'stolen', key_reset: false });
    await fleet.resetKey(scope, uid);
    const [reset] = await open.database.sql`select key_reset, enrollment from agents where uid = ${uid}`;
    expect(reset).toMatchObject({ key_reset: true, enrollment: 'revoked' });
  });

  it('adds and removes labels, each once and in order, and keeps a note', async () => {
    const { uid } = await agent({ labels: ['b', 'a'] });
    expect((await fleet.setLabels(scope, uid, ['c', 'a', 'c'], ['b', 'x'])).labels).toEqual(['a', 'c']);
    expect((await fleet.setLabels(scope, uid, ['d'], ['d'])).labels).toEqual(['a', 'c']);
    expect((await fleet.setLabels(scope, uid, [], ['a', 'c'])).labels).toEqual([]);
    expect((await fleet.setNote(scope, uid, "it's ours")).note).toBe("it's ours");
  });

  it('switches channels off and on, by long name, short name or uid, and tells the links', async () => {
    const { uid, name } = await agent({ name: 'web-1.example' });
    const active = async () => (await fleet.activeChannels(everything, [uid])).get(uid) ?? [];
    expect(await active()).toHaveLength(16);
    expect(await active()).toContain('agent.web-1.example.logs');
    for (const channel of ['agent.logs', `agent.${name}.threats`, `backend.${uid}.tests`, 'backend.threats'])
      await fleet.setChannelActive(scope, uid, channel, false);
    expect(await active()).toHaveLength(12);
    for (const gone of ['agent.web-1.example.logs', 'agent.web-1.example.threats', 'backend.web-1.example.tests'])
      expect(await active()).not.toContain(gone);
    expect(await active()).toContain('agent.web-1.example.tests');
    expect(hints).toEqual([uid, uid, uid, uid]);
    await fleet.setChannelActive(scope, uid, 'agent.logs', true);
    expect(await active()).toHaveLength(13);
    for (const channel of ['logs', 'policies', 'agent.nonsense', 'backend.logs', `agent.${randomUUID()}.logs`, ''])
      await expect(fleet.setChannelActive(scope, uid, channel, false)).rejects.toMatchObject({
        code: 'CHANNEL_UNKNOWN',
      });
    expect((await fleet.activeChannels(everything, [randomUUID()])).size).toBe(1);
  });

  it('asks for the links of an agent to be closed', async () => {
    const { uid, name } = await agent();
    expect((await fleet.disconnect(scope, name)).uid).toBe(uid);
    expect(closed).toEqual([`${uid} LINK_DISCONNECTED`]);
  });
});
