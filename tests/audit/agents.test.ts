import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { encodeSecureMessage } from '../../src/agent-client/v1-frames.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { createRefusals } from '../../src/audit/refusals.ts';
import { systemClock } from '../../src/clock.ts';
import { type Stage, startStage } from '../agent-gateway/stage.ts';
import { engines, openEngine } from '../db/engines.ts';
import { fingerprintOf } from '../fleet/agents.ts';
import { eventually } from '../support/eventually.ts';
import { auditEntries, type SeenEntry } from './entries.ts';

const base64 = (key: Uint8Array) => Buffer.from(key).toString('base64');

describe('what an agent does', () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await startStage({ env: { AGENT_ENROLLMENT: 'approval', AGENT_KEY_CHANGE: 'quarantine' } });
  });
  afterEach(() => stage.endAgents());
  afterAll(() => stage.stop());

  const approve = (ref: string) => stage.ask('mutation ($ref: ID!) { approveAgent(agentId: $ref) { uid } }', { ref });
  const reset = (ref: string) => stage.ask('mutation ($ref: ID!) { resetAgentKey(agentId: $ref) { uid } }', { ref });
  async function entriesOf(uid: string | null, action?: string): Promise<SeenEntry[]> {
    return auditEntries(stage.ask, { subjectId: uid, ...(action ? { actions: [action] } : {}) });
  }
  const actionsOf = async (uid: string | null) => (await entriesOf(uid)).map(({ action }) => action).reverse();

  it('is put on record when it enrols, with its key and where it came from', async () => {
    const agent = await stage.registered();
    const [entry] = await entriesOf(agent.uid, 'agent.enrolled');
    expect(entry).toMatchObject({
      orgId: 'default-org',
      actor: { kind: 'agent', id: agent.uid, label: agent.agentId, address: '127.0.0.1' },
      subject: { type: 'agent', id: agent.uid, name: agent.agentId },
      outcome: 'OK',
      details: {
        ...{ protocol: 'v1', enrollment: 'pending' },
        keyFingerprint: fingerprintOf(base64(agent.key.publicKey)),
      },
    });
    const again = await stage.authenticated({ agentId: agent.agentId, key: agent.key });
    expect(again.isOpen).toBe(true);
    expect(await actionsOf(agent.uid)).toEqual(['agent.enrolled']);
  });

  it('is put on record when it shows another key that has to wait, once a minute', async () => {
    const agent = await stage.registered();
    await approve(agent.agentId);
    const strangers = [await stage.authenticated({ agentId: agent.agentId })];
    for (let more = 0; more < 3; more++) strangers.push(await stage.authenticated({ agentId: agent.agentId }));
    const pending = await entriesOf(agent.uid, 'agent.key-pending');
    expect(pending.map(({ details }) => details)).toEqual([
      { protocol: 'v1', keyFingerprint: fingerprintOf(base64(strangers[0]?.key.publicKey ?? new Uint8Array())) },
    ]);
    await approve(agent.agentId);
    const [approval] = await entriesOf(agent.uid, 'agent.approve');
    expect(approval?.details).toEqual({
      protocol: 'v1',
      keyFingerprint: fingerprintOf(base64(strangers.at(-1)?.key.publicKey ?? new Uint8Array())),
      previousKeyFingerprint: fingerprintOf(base64(agent.key.publicKey)),
    });
    await eventually(async () => (await entriesOf(agent.uid, 'agent.superseded')).length === 1);
  });

  it('is put on record when its key changes, with the one before and the link that it took over', async () => {
    const agent = await stage.registered();
    await approve(agent.agentId);
    await reset(agent.agentId);
    const next = await stage.authenticated({ agentId: agent.agentId });
    expect(await actionsOf(agent.uid)).toEqual([
      ...['agent.enrolled', 'agent.approve', 'agent.reset-key', 'agent.key-changed', 'agent.superseded'],
    ]);
    const [changed] = await entriesOf(agent.uid, 'agent.key-changed');
    expect(changed?.details).toEqual({
      ...{ protocol: 'v1', enrollment: 'approved' },
      keyFingerprint: fingerprintOf(base64(next.key.publicKey)),
      previousKeyFingerprint: fingerprintOf(base64(agent.key.publicKey)),
    });
  });

  it('is put on record when it names its next key', async () => {
    const agent = await stage.connectedV2();
    await approve(agent.name);
    await agent.next();
    const key = nativeCrypto.generateSigningKey();
    agent.rotate(key);
    await agent.next();
    const [entry] = await entriesOf(agent.uid, 'agent.key-named');
    expect(entry).toMatchObject({
      actor: { kind: 'agent', address: '127.0.0.1' },
      details: { protocol: 'v2', keyFingerprint: fingerprintOf(base64(key.publicKey)) },
    });
  });
});

describe('an agent that is refused', () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await startStage({ env: { AGENT_ENROLLMENT: 'open', AGENT_KEY_CHANGE: 'refuse' } });
  });
  afterEach(() => stage.endAgents());
  afterAll(() => stage.stop());

  /** What a gateway has noted it writes at the latest when it stops. A minute may have ended in between. */
  async function written(filter: Record<string, unknown>) {
    stage.endAgents();
    await stage.gateway.restart();
    const counts = new Map<string, number>();
    const entries = await auditEntries(stage.ask, filter);
    for (const { outcome, details } of entries) counts.set(outcome, (counts.get(outcome) ?? 0) + Number(details.count));
    return { entries, counts: Object.fromEntries(counts) };
  }

  const refusalsOf = (uid: string | null) => written({ subjectId: uid, actions: ['agent.refused'] });
  const revoke = (ref: string) => stage.ask('mutation ($ref: ID!) { revokeAgent(agentId: $ref) { uid } }', { ref });

  it('is put on record by the reason, all that come within a minute together', async () => {
    const agent = await stage.registered();
    const comesBack = async (code: string) => {
      for (let attempt = 0; attempt < 5; attempt++) {
        const refused = await stage.dial({ agentId: agent.agentId });
        expect(await refused.authenticate()).toMatchObject({ success: false, code });
      }
    };
    await comesBack('KEY_CONFLICT');
    await revoke(agent.agentId);
    await comesBack('AGENT_REVOKED');
    const { entries, counts } = await refusalsOf(agent.uid);
    expect(counts).toEqual({ KEY_CONFLICT: 5, AGENT_REVOKED: 5 });
    expect(entries[0]).toMatchObject({
      ...{ action: 'agent.refused', orgId: 'default-org' },
      subject: { type: 'agent', id: agent.uid, name: agent.agentId },
      actor: { kind: 'agent', id: agent.uid, address: '127.0.0.1', requestId: null },
      details: { protocol: 'v1', first: expect.any(String), last: expect.any(String) },
    });
  });

  it('is put on record for v1 after v2, and for v2 with a key of v1', async () => {
    const agent = await stage.connectedV2();
    const back = await stage.dial({ agentId: agent.name });
    expect(await back.authenticate()).toMatchObject({ code: 'AGENT_V1_REFUSED' });
    await stage.connectedV2({ name: agent.name, key: back.key }).catch(() => null);
    const { counts } = await refusalsOf(agent.uid);
    expect(counts).toEqual({ AGENT_V1_REFUSED: 1, KEY_USED_IN_V1: 1 });
  });

  it('is put on record for a replayed handshake, and for frames that are replayed or forged', async () => {
    const agent = await stage.registered();
    const replayed = await stage.dial({ agentId: agent.agentId, key: agent.key });
    const request = replayed.request();
    expect(await replayed.authenticate(request)).toMatchObject({ success: true });
    const replay = await stage.dial({ agentId: agent.agentId, key: agent.key });
    expect(await replay.authenticate(request)).toMatchObject({ code: 'AUTH_NONCE_REUSED' });
    const message = replayed.message('logs', {});
    const forged = replayed.message('logs', {}, { signature: Buffer.alloc(64, 1).toString('base64') });
    for (const each of [message, message, forged]) replayed.socket.send(encodeSecureMessage(each));
    await eventually(async () => (await stage.refused('FRAME_SIGNATURE_INVALID')) > 0);
    await eventually(async () => (await stage.refused('FRAME_REPLAYED')) > 0);
    const frames = await written({ subjectId: agent.uid, actions: ['agent.refused', 'agent.frame-refused'] });
    expect(frames.counts).toEqual({ AUTH_NONCE_REUSED: 1, FRAME_REPLAYED: 1, FRAME_SIGNATURE_INVALID: 1 });
  });

  it('before it has proved to be anyone is put on record by the reason alone', async () => {
    for (const agentId of ['somebody', 'somebody-else']) {
      const liar = await stage.dial({ agentId });
      const request = { ...liar.request(), signature: Buffer.alloc(64, 1).toString('base64') };
      expect(await liar.authenticate(request)).toMatchObject({ code: 'AUTH_SIGNATURE_INVALID' });
    }
    const { entries, counts } = await written({ actions: ['handshake.refused'], outcome: 'AUTH_SIGNATURE_INVALID' });
    expect(counts).toEqual({ AUTH_SIGNATURE_INVALID: 2 });
    expect(entries[0]).toMatchObject({ orgId: null, subject: { type: 'handshake', id: 'unknown', name: null } });
  });
});

describe('summing refusals up', () => {
  it('takes as many entries for a thousand invented names as for a hundred, and loses none', async () => {
    const open = await openEngine(engines.at(-1) ?? 'embedded');
    const refusals = createRefusals({ database: open.database, clock: systemClock, logError: () => {} });
    for (let index = 0; index < 1_000; index++)
      refusals.note({
        ...{ action: 'agent.refused', protocol: 'v1', code: 'REGISTRATION_CLOSED', clientAddress: '192.0.2.1' },
        agent: { orgId: 'default-org', uid: null, name: `invented-${index}` },
      });
    await refusals.stop();
    const [total] = await open.database.sql`
      select count(*) as entries, sum((details->>'count')::integer)::integer as refusals from audit_pending`;
    expect(total).toEqual({ entries: 101, refusals: 1_000 });
    await open.close();
  });
});
