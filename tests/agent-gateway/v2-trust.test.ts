import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { signRotation } from '../../src/agent-gateway/crypto/v2-key-rotation.ts';
import { encodeKeyRotation } from '../../src/agent-gateway/wire/v2-session-channel.ts';
import { fingerprintOf } from '../fleet/agents.ts';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { SteppedClock } from './clocks.ts';
import type { RawV2Agent } from './raw-v2-agent.ts';
import { type Stage, startStage } from './stage.ts';

let stage: Stage;
beforeAll(async () => {
  stage = await startStage({ env: { AGENT_ENROLLMENT: 'approval', AGENT_KEY_CHANGE: 'quarantine' } });
});
afterEach(() => stage.endAgents());
afterAll(() => stage.stop());

const approve = (ref: string) => stage.ask('mutation ($ref: ID!) { approveAgent(agentId: $ref) { uid } }', { ref });
const reset = (ref: string) => stage.ask('mutation ($ref: ID!) { resetAgentKey(agentId: $ref) { uid } }', { ref });

async function tokenFor(name: string): Promise<string> {
  const data = await stage.ask(
    'mutation ($name: String!) { createEnrollmentToken(input: { agentId: $name, expiresIn: 600 }) { token } }',
    { name },
  );
  return z.object({ createEnrollmentToken: z.object({ token: z.string() }) }).parse(data).createEnrollmentToken.token;
}

/** An agent that enrols with a token made for its name. */
async function trusted(name: string): Promise<RawV2Agent> {
  const token = await tokenFor(name);
  return stage.connectedV2({ name, identity: { enroll: enrollment(token) } });
}

const enrollment = (token: string | null) => ({
  ...{ token, hostId: 'host', agentVersion: '2.0.0', machineIdHash: null },
  ...{ platform: { hostname: 'db-7' }, network: undefined, capabilities: undefined },
});

let count = 0;
const name = () => `v2-trust-${process.pid}-${++count}`;

const trustOf = async (agent: RawV2Agent, id: string) => (await stage.event(agent.name, id)).trusted;

async function rotated(agent: RawV2Agent): Promise<RawV2Agent> {
  const key = nativeCrypto.generateSigningKey();
  const request = agent.rotate(key);
  expect(await agent.next()).toMatchObject({
    type: 'response',
    payload: { op: 'rotated' },
    headers: { replyTo: request },
  });
  return stage.connectedV2({ name: agent.name, key });
}

describe('an agent in quarantine', () => {
  it('is told so, has its events stored as untrusted, and comes out of it on the same link', async () => {
    const agent = await stage.connectedV2({ identity: { enroll: enrollment('enr_none') } });
    expect(agent.grant).toMatchObject({ enrollment: 'quarantined' });
    const early = agent.say();
    await agent.untilAcknowledged([early]);
    expect(await trustOf(agent, early)).toBe(false);
    const messageId = await stage.send(agent.name);
    await approve(agent.name);
    expect(await agent.next()).toMatchObject({
      ...{ type: 'event', channel: 'session', payload: { op: 'enrollment', enrollment: 'trusted' } },
    });
    const command = await agent.next();
    agent.acknowledge(command.id);
    await stage.untilStatus(messageId, 'DELIVERED');
    expect(await trustOf(agent, agent.say())).toBe(true);
    expect(await trustOf(agent, early)).toBe(false);
  });

  it('lives beside the trusted one, and takes neither its place nor its commands nor its ids', async () => {
    const agent = await trusted(name());
    const stranger = await stage.connectedV2({ name: agent.name });
    expect(stranger.grant).toMatchObject({ agentUid: agent.uid, epoch: agent.grant.epoch, enrollment: 'quarantined' });
    await stranger.untilAcknowledged([stranger.say({ id: 'first', payload: 'hers' })]);
    await agent.untilAcknowledged([agent.say({ id: 'first', payload: 'ours' })]);
    const seen = (await stage.events(agent.name)).map(({ payload, trusted: isTrusted }) => [payload, isTrusted]);
    expect(seen).toEqual([
      ['hers', false],
      ['ours', true],
    ]);
    await stage.send(agent.name);
    agent.acknowledge((await agent.next()).id);
    expect(stranger.received.filter(({ channel }) => channel.startsWith('backend'))).toEqual([]);
    expect([agent.isOpen, stranger.isOpen]).toEqual([true, true]);
  });
});

describe('a downgrade', () => {
  it('is refused: an agent once trusted on v2 may not come on v1, until an operator resets it', async () => {
    const before = await stage.registered();
    await approve(before.agentId);
    const agent = await trusted(before.agentId);
    expect(agent.uid).toBe(before.uid);
    expect(await before.closed).toMatchObject({ code: 4004 });
    for (const key of [before.key, nativeCrypto.generateSigningKey()]) {
      const back = await stage.dial({ agentId: agent.name, key });
      expect(await back.authenticate()).toMatchObject({ success: false, code: 'AGENT_V1_REFUSED' });
      expect(await back.closed).toMatchObject({ code: 4001 });
    }
    expect(agent.isOpen).toBe(true);
    await reset(agent.name);
    const back = await stage.authenticated({ agentId: agent.name });
    expect(await stage.agent(agent.name)).toMatchObject({ enrollment: 'APPROVED' });
    expect(await agent.closed).toMatchObject({ code: 4004 });
    expect(back.isOpen).toBe(true);
  });

  it('cannot be prevented by a stranger on v2 who wants to lock an agent of v1 out', async () => {
    const agent = await stage.registered();
    await approve(agent.agentId);
    for (let stranger = 0; stranger < 3; stranger++)
      expect((await stage.connectedV2({ name: agent.agentId })).grant.enrollment).toBe('quarantined');
    const again = await stage.dial({ agentId: agent.agentId, key: agent.key, headers: agent.reconnectHeaders() });
    again.uid = agent.uid;
    expect(await again.authenticate()).toMatchObject({ success: true });
    await stage.untilStatus(await stage.send(agent.agentId), 'DELIVERED');
  });

  it('shows in the session and the counts which protocol is spoken', async () => {
    const agent = await trusted(name());
    const { agent: seen, gateway } = await stage.ask(
      `query ($ref: ID!) { agent(agentId: $ref) { session { protocol } v2Since }
        gateway { connectedAgentsByProtocol(protocol: V2) } }`,
      { ref: agent.name },
    );
    expect(seen).toMatchObject({ session: { protocol: 'V2' }, v2Since: expect.any(String) });
    expect(gateway).toMatchObject({ connectedAgentsByProtocol: expect.any(Number) });
    // Those of the tests before are on their way out.
    await eventually(async () => (await stage.metric('aegis_links{protocol="v2"}')) === 1);
  });
});

describe('a rotation', () => {
  it('puts a new key in the place of the old one with the next handshake; nothing is stored twice', async () => {
    const agent = await trusted(name());
    await agent.untilAcknowledged([agent.say({ id: 'before' })]);
    const newer = await rotated(agent);
    expect(newer.grant).toMatchObject({ agentUid: agent.uid, enrollment: 'trusted' });
    expect(await agent.closed).toMatchObject({ code: 4004 });
    // Its acknowledgement may have been lost.
    await newer.untilAcknowledged([newer.say({ id: 'before' }), newer.say({ id: 'after' })]);
    const events = await stage.events(agent.name);
    expect(events.map(({ messageId, trusted: isTrusted }) => [messageId, isTrusted])).toEqual([
      ['before', true],
      ['after', true],
    ]);
    expect((await stage.connectedV2({ name: agent.name, key: agent.key })).grant.enrollment).toBe('quarantined');
  });

  it('may be asked for again, as by an agent whose answer was lost', async () => {
    const agent = await trusted(name());
    const key = nativeCrypto.generateSigningKey();
    for (let time = 0; time < 2; time++) {
      agent.rotate(key);
      expect(await agent.next()).toMatchObject({ payload: { op: 'rotated' } });
    }
    expect((await stage.connectedV2({ name: agent.name, key: agent.key })).grant.enrollment).toBe('trusted');
    expect((await stage.connectedV2({ name: agent.name, key })).grant.enrollment).toBe('trusted');
  });

  it.each<readonly [string, string, (agent: RawV2Agent) => Promise<object> | object]>([
    ['to nothing', 'FRAME_MALFORMED', () => ({ op: 'rotate' })],
    [
      'to the same key',
      'AUTH_SIGNATURE_INVALID',
      (agent) => encodeKeyRotation(signRotation(agent.session, agent.key, agent.key)),
    ],
    [
      'to a key of small order',
      'BAD_PUBKEY',
      (agent) =>
        encodeKeyRotation({
          ...signRotation(agent.session, agent.key, nativeCrypto.generateSigningKey()),
          publicKey: Uint8Array.from({ length: 32 }, (_, index) => (index === 0 ? 1 : 0)),
        }),
    ],
    [
      'that the old key did not sign',
      'AUTH_SIGNATURE_INVALID',
      (agent) =>
        encodeKeyRotation(
          signRotation(agent.session, nativeCrypto.generateSigningKey(), nativeCrypto.generateSigningKey()),
        ),
    ],
    [
      'of another session',
      'AUTH_SIGNATURE_INVALID',
      async (agent) => {
        const other = await trusted(name());
        return encodeKeyRotation(signRotation(other.session, agent.key, nativeCrypto.generateSigningKey()));
      },
    ],
    [
      'to a key of v1',
      'KEY_USED_IN_V1',
      async (agent) => {
        const { key } = await stage.authenticated();
        return encodeKeyRotation(signRotation(agent.session, agent.key, key));
      },
    ],
  ])('%s is refused with %s, and the link goes on', async (_name, code, payloadOf) => {
    const agent = await trusted(name());
    const request = agent.say({ type: 'request', channel: 'session', payload: await payloadOf(agent) });
    expect(await agent.next()).toMatchObject({
      ...{ type: 'error', payload: { code }, headers: { replyTo: request, ackFor: [request] } },
    });
    await agent.untilAcknowledged([agent.say()]);
  });

  it('is refused to an agent in quarantine', async () => {
    const agent = await stage.connectedV2();
    agent.rotate(nativeCrypto.generateSigningKey());
    expect(await agent.next()).toMatchObject({ type: 'error', payload: { code: 'KEY_CONFLICT' } });
  });
});

describe('a link', () => {
  it('closes with 4003 when its agent is revoked, 4005 when an operator closes it', async () => {
    const [revoked, disconnected] = [await trusted(name()), await trusted(name())];
    await stage.ask('mutation ($ref: ID!) { revokeAgent(agentId: $ref) { uid } }', { ref: revoked.name });
    await stage.ask('mutation ($ref: ID!) { disconnectAgent(agentId: $ref) { uid } }', { ref: disconnected.name });
    expect(await revoked.closed).toEqual({ code: 4003, reason: 'The agent is revoked' });
    expect(await disconnected.closed).toEqual({ code: 4005, reason: 'An operator closed the connection' });
  });

  it('closes with 4004 when another key is put in the place of its own: it is the agent no more', async () => {
    const agent = await trusted(name());
    const other = await stage.connectedV2({ name: agent.name });
    other.terminate();
    await agent.untilAcknowledged([agent.say()]);
    const keyFingerprint = fingerprintOf(other.publicKey);
    await stage.ask(
      'mutation ($ref: ID!, $key: String) { approveAgent(agentId: $ref, keyFingerprint: $key) { uid } }',
      {
        ...{ ref: agent.name, key: keyFingerprint },
      },
    );
    expect(await agent.closed).toMatchObject({ code: 4004 });
    expect(await stage.agent(agent.name)).toMatchObject({ enrollment: 'APPROVED', keyFingerprint });
    expect((await stage.connectedV2({ name: agent.name, key: other.key })).grant.enrollment).toBe('trusted');
  });

  it('is superseded by a second one with 4004; what it still brings counts, and nothing is lost or doubled', async () => {
    const first = await trusted(name());
    const sent: string[] = [];
    for (let round = 0; round < 10; round++) sent.push(...first.send({}, {}, {}));
    const second = await stage.connectedV2({ name: first.name, key: first.key });
    expect(second.grant.epoch).toBeGreaterThan(first.grant.epoch);
    sent.push(...first.send({}, {}));
    await first.untilAcknowledged(sent);
    expect(await first.closed).toEqual({ code: 4004, reason: 'A newer connection took over' });
    await second.untilAcknowledged(sent.slice(-8).map((id) => second.say({ id })));
    sent.push(second.say());
    await second.untilAcknowledged(sent.slice(-1));
    expect((await stage.events(first.name)).map(({ messageId }) => messageId)).toEqual(sent);
    const messageId = await stage.send(first.name);
    second.acknowledge((await second.next()).id);
    await stage.untilStatus(messageId, 'DELIVERED');
  });
});

describe.skipIf(!hasPostgres())('two gateways with the same keys', () => {
  const clock = new SteppedClock();
  let dataDir: string;
  let one: Stage;
  let other: Stage;
  beforeEach(async () => {
    dataDir = mkdtempSync(join(tmpdir(), 'aegis-v2-'));
    one = await startStage({ clock, env: { DATA_DIR: dataDir } });
    other = await startStage({ clock, env: { DATA_DIR: dataDir }, databaseUrl: one.gateway.databaseUrl ?? '' });
  });
  afterEach(async () => {
    await other.stop();
    await one.stop();
    rmSync(dataDir, { recursive: true });
  });

  it('own an agent in turn: the older link closes with 4004 and changes nothing', async () => {
    const older = await one.connectedV2();
    const newer = await other.connectedV2({ name: older.name, key: older.key });
    expect(newer.grant.epoch).toBeGreaterThan(older.grant.epoch);
    const messageId = await one.send(older.name);
    const command = await eventually(() => {
      clock.advance(1_000);
      return newer.received.find(({ channel }) => channel.startsWith('backend'));
    });
    older.acknowledge(command.id);
    await eventually(() => {
      clock.advance(1_000);
      return !older.isOpen;
    });
    expect(await older.closed).toMatchObject({ code: 4004 });
    expect(await one.message(messageId)).toMatchObject({ status: 'SENT' });
    newer.acknowledge(command.id);
    await other.untilStatus(messageId, 'DELIVERED');
    expect(await other.agent(older.name)).toMatchObject({ connected: true });
    expect(newer.isOpen).toBe(true);
  });

  it('do not take the M3 that was made for the other one', async () => {
    const agent = await one.dialV2();
    agent.socket.send(agent.initiator.m1);
    const m3 = await agent.answerToM2();
    const thief = await other.dialV2();
    thief.socket.send(agent.initiator.m1);
    await eventually(() => thief.frames.length === 1);
    thief.socket.send(m3);
    const failed = 'aegis_v2_handshakes_failed_total{fault="not-opened"}';
    await eventually(() => other.metric(failed));
    clock.advance(5_000);
    expect(await thief.closed).toMatchObject({ code: 4001 });
    expect(await other.agent(agent.name)).toBeNull();
  });
});
