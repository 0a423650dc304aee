import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { systemClock } from '../../src/clock.ts';
import type { AdmissionPolicy } from '../../src/fleet/admission-policy.ts';
import { createV1KeyRetention, v1KeysKeptMs } from '../../src/fleet/v1-key-retention.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { eventually } from '../support/eventually.ts';
import {
  enrollWith,
  everything,
  type FleetUnderTest,
  fleetUnderTest,
  letIn,
  v1Agent,
  v2Agent,
} from './admission-stage.ts';
import { fingerprintOf, newKey } from './agents.ts';

const trusted = { standing: { trusted: true }, epoch: expect.any(Number) };
const waitsForApproval = {
  standing: { trusted: false, holdsKey: true, enrollment: 'pending' },
  epoch: expect.any(Number),
};
const waitsBeside = { standing: { trusted: false, holdsKey: false }, epoch: null };

describe.each(engines)('admission on %s', (engine) => {
  let open: EngineDatabase;
  let defaultOrg: string;
  let name: string;
  let count = 0;
  beforeAll(async () => {
    open = await openEngine(engine);
  });
  afterAll(() => open.close());
  beforeEach(() => {
    defaultOrg = `org-${randomUUID()}`;
    name = `host-${++count}`;
  });

  const start = (enrollment: AdmissionPolicy['enrollment'] = 'approval', policy: Partial<AdmissionPolicy> = {}) =>
    fleetUnderTest(open.database, { defaultOrg, enrollment, ...policy });

  /** An agent that is trusted on v1, and its key. */
  async function trustedOnV1(gate: FleetUnderTest): Promise<{ uid: string; publicKey: string; epoch: number }> {
    const publicKey = newKey();
    const { standing } = letIn(await gate.v1(name, { publicKey }));
    await gate.fleet.approve(everything, standing.agentUid);
    const { epoch } = letIn(await gate.v1(name, { publicKey }));
    return { uid: standing.agentUid, publicKey, epoch: epoch ?? 0 };
  }

  async function trustedOnV2(gate: FleetUnderTest): Promise<{ uid: string; publicKey: string; epoch: number }> {
    const publicKey = newKey();
    const enroll = enrollWith(await gate.token());
    const { standing, epoch } = letIn(await gate.v2(name, { publicKey, enroll }));
    expect(standing.trusted).toBe(true);
    return { uid: standing.agentUid, publicKey, epoch: epoch ?? 0 };
  }

  describe('a new name on v2', () => {
    it.each([
      ['open', trusted],
      ['token', waitsForApproval],
      ['approval', waitsForApproval],
    ] as const)('under %s', async (enrollment, outcome) => {
      const gate = await start(enrollment);
      expect(await gate.v2(name)).toMatchObject(outcome);
    });

    it('is refused under closed, with a token too, which stays usable', async () => {
      const gate = await start('closed');
      const token = await gate.token();
      expect(await gate.v2(name, { enroll: enrollWith(token) })).toBe('REGISTRATION_CLOSED');
      expect((await gate.tokens.page(everything, { first: 1 })).items[0]?.state).toBe('usable');
      expect(await gate.fleet.find(everything, name)).toBeNull();
    });

    it.each(['token', 'approval'] as const)(
      'is trusted with an enrolment token under %s, which is used then',
      async (enrollment) => {
        const gate = await start(enrollment);
        const token = await gate.token();
        const { standing } = letIn(await gate.v2(name, { enroll: { ...enrollWith(token), agentVersion: '2.0.0' } }));
        expect(standing).toMatchObject({ trusted: true, orgId: defaultOrg });
        const { items } = await gate.tokens.page({ orgId: defaultOrg }, {});
        expect(items).toMatchObject([{ state: 'used', usedBy: standing.agentUid }]);
        expect(await gate.fleet.find(everything, name)).toMatchObject({ version: '2.0.0', hostId: 'a-host' });
        expect(await gate.v2(`${name}-other`, { enroll: enrollWith(token) })).toMatchObject(waitsForApproval);
      },
    );

    it('has the same uid and a higher epoch when it comes again, with the token that it used too', async () => {
      const gate = await start('token');
      const agent = v2Agent(name, { enroll: enrollWith(await gate.token()) });
      const first = letIn(await gate.v2(name, agent));
      const second = letIn(await gate.v2(name, agent));
      expect(second).toMatchObject({ standing: { agentUid: first.standing.agentUid, trusted: true } });
      expect(second.epoch).toBeGreaterThan(first.epoch ?? 0);
      expect(second.sessionToken).not.toBe(first.sessionToken);
    });

    it('gets in without trust with a token that is wrong, revoked, expired, or of another name', async () => {
      const gate = await start('token');
      const revoked = await gate.token();
      const [made] = (await gate.tokens.page({ orgId: defaultOrg }, { first: 1 })).items;
      await gate.tokens.revoke(everything, made?.id ?? '');
      const expired = await gate.token();
      await open.database
        .sql`update enrollment_tokens set expires_at = now() where org_id = ${defaultOrg} and revoked_at is null`;
      const foreign = await gate.token({ agentName: 'another' });
      for (const [index, token] of ['enr_made-up', revoked, expired, foreign].entries())
        expect(await gate.v2(`${name}-${index}`, { enroll: enrollWith(token) })).toMatchObject(waitsForApproval);
      expect((await gate.tokens.page({ orgId: defaultOrg }, {})).items.map(({ state }) => state)).toEqual([
        'usable',
        'expired',
        'revoked',
      ]);
    });

    it('is trusted with a token that it shows later, when it has waited with the same key', async () => {
      const gate = await start('token');
      const publicKey = newKey();
      expect(await gate.v2(name, { publicKey })).toMatchObject(waitsForApproval);
      expect(await gate.v2(name, { publicKey, enroll: enrollWith(await gate.token()) })).toMatchObject(trusted);
    });

    it('makes one agent of many first contacts at once, on two gateways', async () => {
      const [one, other] = [await start('open'), await start('open')];
      const publicKey = newKey();
      const outcomes = await Promise.all(
        Array.from({ length: 12 }, (_, index) => (index % 2 ? one : other).v2(name, { publicKey })),
      );
      const admissions = outcomes.map(letIn);
      expect(new Set(admissions.map(({ standing }) => standing.agentUid)).size).toBe(1);
      expect(new Set(admissions.map(({ epoch }) => epoch)).size).toBe(12);
    });

    it('uses a token once, however many show it at once on two gateways', async () => {
      const gates = [await start('token'), await start('token')];
      const token = await gates[0]?.token();
      const outcomes = await Promise.all(
        Array.from({ length: 12 }, (_, index) =>
          gates[index % 2]?.v2(`${name}-${index}`, { enroll: enrollWith(token ?? '') }),
        ),
      );
      expect(outcomes.filter((outcome) => typeof outcome === 'object' && outcome.standing.trusted)).toHaveLength(1);
    });
  });

  describe('organisations on v2', () => {
    it('are as the agent names them under open', async () => {
      const gate = await start('open');
      expect(await gate.v2(name, { orgId: 'acme' })).toMatchObject({ standing: { orgId: 'acme', trusted: true } });
      expect(await gate.v2(name, { orgId: '' })).toMatchObject({ standing: { orgId: defaultOrg } });
    });

    it('are as the agent names them with a token of that organisation, else the default one', async () => {
      const gate = await start('token');
      const orgId = `acme-${randomUUID()}`;
      const token = await gate.token({ orgId });
      expect(await gate.v2(name, { orgId })).toMatchObject({ standing: { orgId: defaultOrg, trusted: false } });
      // Of another organisation than the agent names: none at all.
      expect(await gate.v2(`${name}-a`, { enroll: enrollWith(token) })).toMatchObject({
        standing: { orgId: defaultOrg, trusted: false },
      });
      const publicKey = newKey();
      const enrolled = letIn(await gate.v2(name, { orgId, publicKey, enroll: enrollWith(token) }));
      expect(enrolled.standing).toMatchObject({ orgId, trusted: true });
      // From then on it is known there, and needs no token.
      expect(await gate.v2(name, { orgId, publicKey })).toMatchObject({
        standing: { agentUid: enrolled.standing.agentUid, trusted: true },
      });
    });

    it('have their ratchets each for itself', async () => {
      const gate = await start('open');
      expect(await gate.v2(name, { orgId: 'acme' })).toMatchObject(trusted);
      expect(await gate.v1(name)).toMatchObject({ standing: { orgId: defaultOrg, trusted: true } });
    });
  });

  describe('a name that v1 knows', () => {
    it('keeps its uid, and its v2 key waits beside the trusted one, whose link notices nothing', async () => {
      const gate = await start('open', { keyChange: 'replace' });
      const known = await trustedOnV1(gate);
      const publicKey = newKey();
      const stranger = letIn(await gate.v2(name, { publicKey }));
      expect(stranger).toMatchObject({ ...waitsBeside, standing: { ...waitsBeside.standing, agentUid: known.uid } });
      expect(await gate.fleet.find(everything, name)).toMatchObject({
        keyFingerprint: fingerprintOf(known.publicKey),
        pendingKeys: [{ fingerprint: fingerprintOf(publicKey), protocol: 'v2' }],
        session: { protocol: 'v1' },
        v2Since: null,
        lastV2At: null,
      });
      const [row] = await open.database.sql`select epoch from agents where uid = ${known.uid}`;
      expect(row?.epoch).toBe(known.epoch);
    });

    it('is not locked out on v1 by strangers on v2, whether it is trusted or waits itself', async () => {
      const gate = await start();
      const known = await trustedOnV1(gate);
      for (let stranger = 0; stranger < 3; stranger++) expect(await gate.v2(name)).toMatchObject(waitsBeside);
      expect(await gate.v1(name, { publicKey: known.publicKey })).toMatchObject(trusted);
      // Its next start makes a new key, whose place in the queue no stranger on v2 takes.
      const restarted = newKey();
      expect(await gate.v1(name, { publicKey: restarted })).toMatchObject(waitsBeside);
      expect(await gate.v2(name)).toMatchObject(waitsBeside);
      await gate.fleet.approve(everything, name, fingerprintOf(restarted));
      expect(await gate.v1(name, { publicKey: restarted })).toMatchObject(trusted);

      const waiting = newKey();
      const { epoch } = letIn(await gate.v1(`${name}-new`, { publicKey: waiting }));
      expect(await gate.v2(`${name}-new`)).toMatchObject(waitsBeside);
      const again = letIn(await gate.v1(`${name}-new`, { publicKey: waiting }));
      expect(again).toMatchObject(waitsForApproval);
      expect(again.epoch).toBeGreaterThan(epoch ?? 0);
      // Without a fingerprint it is the agent that is approved, not who stands beside it.
      await gate.fleet.approve(everything, `${name}-new`);
      expect(await gate.v1(`${name}-new`, { publicKey: waiting })).toMatchObject(trusted);
    });

    it('is trusted on v2 with a token that was made for it, not with one for any new name', async () => {
      const gate = await start('token');
      const known = await trustedOnV1(gate);
      const general = await gate.token();
      expect(await gate.v2(name, { enroll: enrollWith(general) })).toMatchObject(waitsBeside);
      const own = await gate.token({ agentName: name });
      expect(await gate.v2(name, { enroll: enrollWith(own) })).toMatchObject({
        standing: { agentUid: known.uid, trusted: true },
      });
      expect((await gate.tokens.page({ orgId: defaultOrg }, {})).items.map(({ state }) => state)).toEqual([
        'used',
        'usable',
      ]);
    });

    it('is refused on v1 once its v2 key is trusted, by socket and over HTTP, until its key is reset', async () => {
      const gate = await start('open', { keyChange: 'replace' });
      const known = await trustedOnV1(gate);
      const publicKey = newKey();
      await gate.v2(name, { publicKey });
      expect(await gate.v1(name, { publicKey: known.publicKey })).toMatchObject(trusted);
      await gate.fleet.approve(everything, name, fingerprintOf(publicKey));
      expect(await gate.v2(name, { publicKey })).toMatchObject(trusted);
      for (const key of [known.publicKey, newKey()])
        expect(await gate.v1(name, { publicKey: key, uid: known.uid })).toBe('AGENT_V1_REFUSED');
      expect(await gate.registerOverHttp(name)).toBe('AGENT_V1_REFUSED');
      expect(await gate.fleet.find(everything, name)).toMatchObject({
        keyFingerprint: fingerprintOf(publicKey),
        v2Since: expect.any(Date),
        lastV1At: expect.any(Date),
        lastV2At: expect.any(Date),
      });

      await gate.fleet.resetKey(everything, name);
      const back = newKey();
      expect(await gate.v1(name, { publicKey: back })).toMatchObject({
        standing: { agentUid: known.uid, trusted: true },
      });
      expect(await gate.fleet.find(everything, name)).toMatchObject({ v2Since: null });
      // And its v2 key is a stranger's again.
      expect(await gate.v2(name, { publicKey })).toMatchObject(waitsBeside);
    });
  });

  describe('keys of v1', () => {
    it.each<[string, (gate: FleetUnderTest, publicKey: string) => Promise<unknown>]>([
      [
        'was trusted',
        async (gate, publicKey) => {
          await gate.v1(name, { publicKey });
          return gate.fleet.approve(everything, name);
        },
      ],
      ['waited for approval', (gate, publicKey) => gate.v1(name, { publicKey })],
      [
        'waited beside another',
        async (gate, publicKey) => {
          await trustedOnV1(gate);
          await gate.v1(name, { publicKey });
        },
      ],
      ['was shown under another name', (gate, publicKey) => gate.v1(`${name}-other`, { publicKey })],
      [
        'was refused',
        async (gate, publicKey) => {
          await trustedOnV1(gate);
          await gate.fleet.revoke(everything, name, null);
          expect(await gate.v1(name, { publicKey })).toBe('AGENT_REVOKED');
        },
      ],
    ])('prove nothing on v2: one that %s', async (_what, show) => {
      const gate = await start();
      const publicKey = newKey();
      await show(gate, publicKey);
      for (const ref of [name, `${name}-fresh`]) expect(await gate.v2(ref, { publicKey })).toBe('KEY_USED_IN_V1');
      const enroll = enrollWith(await gate.token({ agentName: `${name}-fresh` }));
      expect(await gate.v2(`${name}-fresh`, { publicKey, enroll })).toBe('KEY_USED_IN_V1');
    });

    it('are those of registrations over HTTP too, refused or not', async () => {
      const gate = await start();
      const key = nativeCrypto.generateSigningKey();
      const publicKey = Buffer.from(key.publicKey).toString('base64');
      expect(await gate.registerOverHttp(name, key)).toBeNull();
      expect(await gate.v2(`${name}-fresh`, { publicKey })).toBe('KEY_USED_IN_V1');

      await gate.fleet.revoke(everything, name, null);
      const refused = nativeCrypto.generateSigningKey();
      expect(await gate.registerOverHttp(name, refused)).toBe('AGENT_REVOKED');
      const refusedKey = Buffer.from(refused.publicKey).toString('base64');
      expect(await gate.v2(`${name}-fresh`, { publicKey: refusedKey })).toBe('KEY_USED_IN_V1');
    });

    it('are none that somebody else has only named: nobody can have the key of a v2 agent refused', async () => {
      const gate = await start();
      const publicKey = Buffer.from(nativeCrypto.generateSigningKey().publicKey).toString('base64');
      await gate.v2(name, { publicKey, enroll: enrollWith(await gate.token()) });
      await gate.beginOverHttp(name, publicKey);
      expect(await gate.v2(name, { publicKey })).toMatchObject(trusted);
    });

    it('are forgotten half a year after they were shown, unless they are on record', async () => {
      const gate = await start('open');
      const [onRecord, exchanged, refused, lately] = [newKey(), newKey(), newKey(), newKey()];
      await gate.v1(name, { publicKey: exchanged });
      await gate.v1(name, { publicKey: onRecord });
      await gate.v1(`${name}-revoked`, {});
      await gate.fleet.revoke(everything, `${name}-revoked`, null);
      for (const publicKey of [refused, lately])
        expect(await gate.v1(`${name}-revoked`, { publicKey })).toBe('AGENT_REVOKED');
      const age = async (publicKey: string, ageMs: number) => open.database.sql`
        update v1_keys set seen_at = now() - ${ageMs} * interval '1 millisecond'
        where key_fingerprint = ${fingerprintOf(publicKey)}`;
      for (const publicKey of [onRecord, exchanged, refused]) await age(publicKey, v1KeysKeptMs + 1_000);
      await age(lately, v1KeysKeptMs - 60_000);

      let look = () => {};
      const errors: unknown[] = [];
      const clock = {
        ...systemClock,
        every: (_intervalMs: number, task: () => void) => {
          look = task;
          return () => {};
        },
      };
      createV1KeyRetention({ database: open.database, clock, logError: (error) => errors.push(error) }).start();
      look();
      const onV2 = (publicKey: string) => gate.v2(`${name}-fresh-${fingerprintOf(publicKey)}`, { publicKey });
      await eventually(async () => (await onV2(refused)) !== 'KEY_USED_IN_V1');
      for (const publicKey of [onRecord, exchanged, lately]) expect(await onV2(publicKey)).toBe('KEY_USED_IN_V1');
      expect(errors).toEqual([]);
    });

    it('are v2 keys as well, once their holders use them on v1', async () => {
      const gate = await start('open');
      const { publicKey } = await trustedOnV2(gate);
      expect(await gate.v2(name, { publicKey })).toMatchObject(trusted);
      expect(await gate.v1(name, { publicKey })).toBe('AGENT_V1_REFUSED');
      expect(await gate.v2(name, { publicKey })).toBe('KEY_USED_IN_V1');
    });
  });

  describe('a name that v2 knows', () => {
    it('lets another key wait beside, which takes nothing from it', async () => {
      const gate = await start('open', { keyChange: 'replace' });
      const known = await trustedOnV2(gate);
      expect(await gate.v2(name)).toMatchObject(waitsBeside);
      expect(await gate.v2(name, { enroll: enrollWith(await gate.token()) })).toMatchObject(waitsBeside);
      expect(await gate.v2(name, { publicKey: known.publicKey })).toMatchObject(trusted);
    });

    it('takes a new key with a token that was made for it', async () => {
      const gate = await start('closed');
      await fleetUnderTest(open.database, { defaultOrg, enrollment: 'open' }).then((wide) => wide.v2(name));
      const publicKey = newKey();
      const enroll = enrollWith(await gate.token({ agentName: name }));
      expect(await gate.v2(name, { publicKey, enroll })).toMatchObject(trusted);
      expect(await gate.fleet.find(everything, name)).toMatchObject({ keyFingerprint: fingerprintOf(publicKey) });
    });

    it('takes one new key after resetAgentKey, also when it was revoked', async () => {
      const gate = await start();
      const { uid } = await trustedOnV2(gate);
      await gate.fleet.revoke(everything, name, null);
      const publicKey = newKey();
      const enroll = enrollWith(await gate.token({ agentName: name }));
      expect(await gate.v2(name, { publicKey, enroll })).toBe('AGENT_REVOKED');
      await gate.fleet.resetKey(everything, name);
      expect(await gate.v2(name, { publicKey })).toMatchObject({ standing: { agentUid: uid, trusted: true } });
      expect(await gate.v2(name)).toMatchObject(waitsBeside);
    });

    it('is revoked with its key, its waiting keys and the tokens that were made for it', async () => {
      const gate = await start();
      const { publicKey } = await trustedOnV2(gate);
      await gate.v2(name);
      await gate.token({ agentName: name });
      await gate.fleet.revoke(everything, name, null);
      expect(await gate.v2(name, { publicKey })).toBe('AGENT_REVOKED');
      expect(await gate.fleet.find(everything, name)).toMatchObject({ pendingKeys: [] });
      expect((await gate.tokens.page({ orgId: defaultOrg }, {})).items[0]?.state).toBe('revoked');
    });
  });

  describe('a key that is named as the next one', () => {
    it('is trusted at its first handshake, and the old one until then', async () => {
      const gate = await start('closed');
      const wide = await start('token');
      const { uid, publicKey, epoch } = await trustedOnV2(wide);
      const next = newKey();
      await gate.admissions.rotateKey({ agentUid: uid, publicKey, epoch }, next);
      // The answer may be lost: either key lets the agent in, and it may ask again.
      const { epoch: again } = letIn(await gate.v2(name, { publicKey }));
      await gate.admissions.rotateKey({ agentUid: uid, publicKey, epoch: again ?? 0 }, next);
      expect(await gate.v2(name, { publicKey: next })).toMatchObject({ standing: { agentUid: uid, trusted: true } });
      expect(await gate.v2(name, { publicKey: next })).toMatchObject(trusted);
      expect(await gate.v2(name, { publicKey })).toMatchObject(waitsBeside);
    });

    it('is named by the link that owns the agent, with the key on record, and by no other', async () => {
      const gate = await start('token');
      const { uid, publicKey, epoch } = await trustedOnV2(gate);
      const next = newKey();
      const rotate = (link: { publicKey: string; epoch: number }, key = next) =>
        gate.admissions.rotateKey({ agentUid: uid, ...link }, key).catch((error) => error.code);
      const { epoch: newer } = letIn(await gate.v2(name, { publicKey }));
      expect(await rotate({ publicKey, epoch })).toBe('LINK_SUPERSEDED');
      expect(await rotate({ publicKey: newKey(), epoch: newer ?? 0 })).toBe('KEY_CONFLICT');
      const ofV1 = newKey();
      await gate.v1(`${name}-v1`, { publicKey: ofV1 });
      expect(await rotate({ publicKey, epoch: newer ?? 0 }, ofV1)).toBe('KEY_USED_IN_V1');
      expect(await gate.v2(name, { publicKey: next })).toMatchObject(waitsBeside);
    });

    it('is refused to an agent without trust', async () => {
      const gate = await start();
      const publicKey = newKey();
      const { standing, epoch } = letIn(await gate.v2(name, { publicKey }));
      await expect(
        gate.admissions.rotateKey({ agentUid: standing.agentUid, publicKey, epoch: epoch ?? 0 }, newKey()),
      ).rejects.toMatchObject({ code: 'KEY_CONFLICT' });
    });

    it.each<[string, (gate: FleetUnderTest, name: string) => Promise<unknown>]>([
      ['resets the key', (gate, ref) => gate.fleet.resetKey(everything, ref)],
      ['revokes the agent', (gate, ref) => gate.fleet.revoke(everything, ref, null)],
      [
        'approves another key',
        async (gate, ref) => {
          const other = newKey();
          await gate.v2(ref, { publicKey: other });
          await gate.fleet.approve(everything, ref, fingerprintOf(other));
        },
      ],
    ])('is forgotten when an operator %s', async (_what, intervene) => {
      const gate = await start();
      const { uid, publicKey, epoch } = await trustedOnV2(gate);
      const next = newKey();
      await gate.admissions.rotateKey({ agentUid: uid, publicKey, epoch }, next);
      await intervene(gate, name);
      const [row] = await open.database.sql`select successor_key_fingerprint from agents where uid = ${uid}`;
      expect(row?.successor_key_fingerprint).toBeNull();
    });
  });

  describe('many at once', () => {
    it('have an outcome each, and one that is refused spoils it for nobody', async () => {
      const gate = await start();
      const known = await trustedOnV1(gate);
      const replayed = v1Agent(`${name}-replayed`);
      await gate.v1(replayed.name, replayed);
      const outcomes = await Promise.all([
        gate.v1(`${name}-a`),
        gate.v1(replayed.name, { ...replayed, attemptId: randomUUID() }),
        gate.v1(`${name}-b`, { headerRef: 'another' }),
        gate.v1(name, { publicKey: known.publicKey }),
        // Postgres refuses this time, and so the transaction that it is in.
        gate.v1(`${name}-c`, { nonce: 'x'.repeat(65) }).catch(() => 'FAILED'),
        gate.v2(`${name}-d`, { publicKey: known.publicKey }),
        gate.v1(`${name}-e`),
      ]);
      expect(outcomes).toMatchObject([
        waitsForApproval,
        'AUTH_NONCE_REUSED',
        'AUTH_IDENTITY_MISMATCH',
        trusted,
        'FAILED',
        'KEY_USED_IN_V1',
        waitsForApproval,
      ]);
      expect(await gate.fleet.find(everything, `${name}-b`)).toBeNull();
      expect(await gate.fleet.find(everything, `${name}-c`)).toBeNull();
    });

    it('come back without a transaction of several statements where they are trusted, whichever protocol they speak', async () => {
      const gate = await start('open');
      const names = Array.from({ length: 20 }, (_, index) => `${name}-${index}`);
      const keys = new Map(names.map((each) => [each, newKey()]));
      const come = (each: string, index: number) =>
        (index % 2 ? gate.v2 : gate.v1)(each, { publicKey: keys.get(each) ?? '' });
      const before = (await Promise.all(names.map(come))).map(letIn);
      const transactions = vi.spyOn(open.database.sql, 'begin');
      const again = (await Promise.all(names.map(come))).map(letIn);
      expect(transactions).not.toHaveBeenCalled();
      transactions.mockRestore();
      for (const [index, { standing, epoch, agentEpoch }] of again.entries()) {
        expect(standing).toMatchObject({ agentUid: before[index]?.standing.agentUid, trusted: true });
        expect(epoch).toBeGreaterThan(before[index]?.epoch ?? 0);
        expect(agentEpoch).toBe(epoch);
      }
    });

    it('are let in by a few transactions', async () => {
      const gate = await start('open');
      const count = 100;
      const outcomes = await Promise.all(Array.from({ length: count }, (_, index) => gate.v1(`${name}-${index}`)));
      expect(outcomes.filter((outcome) => typeof outcome === 'object')).toHaveLength(count);
      const [row] = await open.database.sql<{ transactions: number }[]>`
        select count(distinct xmin::text) as transactions from agents where org_id = ${defaultOrg}`;
      expect(row?.transactions).toBeLessThan(count / 5);
    });

    it.runIf(engine === 'postgres')(
      'are not spoiled by a lost answer: the second try is the same handshake, another is a replay',
      async () => {
        const { database, proxy } = await open.throughProxy();
        const gate = await fleetUnderTest(database, { defaultOrg, enrollment: 'open' });
        const agents = [v1Agent(name), v1Agent(`${name}-2`)] as const;
        const cut = proxy.cutAnswer('COMMIT');
        const lost = agents.map((agent) => gate.admissions.admit(agent));
        expect((await Promise.allSettled(lost)).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
        await cut;
        for (const agent of agents) {
          expect(await gate.v1(agent.name, agent)).toMatchObject(trusted);
          expect(await gate.v1(agent.name, { ...agent, attemptId: randomUUID() })).toBe('AUTH_NONCE_REUSED');
        }
        expect(await gate.fleet.count(everything, { orgId: defaultOrg })).toBe(2);
      },
    );
  });
});
