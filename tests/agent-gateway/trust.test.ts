import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { keyFingerprint } from '../../src/fleet/keys.ts';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { freshName, type RawAgent } from './raw-agent.ts';
import { type Stage, startStage } from './stage.ts';

let stage: Stage;
/** One for each policy. */
const stages = new Map<string, Stage>();
afterEach(() => stage.endAgents());
afterAll(async () => {
  for (const each of stages.values()) await each.stop();
});

async function start(enrollment: string, keyChange = 'quarantine'): Promise<void> {
  const env = { AGENT_ENROLLMENT: enrollment, AGENT_KEY_CHANGE: keyChange };
  const policy = `${enrollment} ${keyChange}`;
  stage = stages.get(policy) ?? (await startStage({ env }));
  stages.set(policy, stage);
}

const approve = (ref: string) => stage.ask('mutation ($ref: ID!) { approveAgent(agentId: $ref) { uid } }', { ref });
const approveAll = (filter: object) =>
  stage.ask('mutation ($filter: AgentFilter!) { approveAgents(filter: $filter) }', { filter });
const revoke = (ref: string) => stage.ask('mutation ($ref: ID!) { revokeAgent(agentId: $ref) { uid } }', { ref });
const resetKey = (ref: string) => stage.ask('mutation ($ref: ID!) { resetAgentKey(agentId: $ref) { uid } }', { ref });

async function countAwaiting(): Promise<number> {
  const shape = z.object({ gateway: z.object({ agentsAwaitingApproval: z.int() }) });
  return shape.parse(await stage.ask('{ gateway { agentsAwaitingApproval } }')).gateway.agentsAwaitingApproval;
}

async function trustOf(agent: RawAgent): Promise<boolean> {
  return (await stage.event(agent.agentId, agent.report('logs', { of: agent.publicKey }))).trusted;
}

/** The channels on which commands came. */
const commandsTo = (agent: RawAgent) => agent.received.filter((text) => text.includes('"backend.policies"')).length;

/** A trusted agent and, beside it, another process under its name with a key of its own. */
async function strangerBeside(): Promise<{ trusted: RawAgent; stranger: RawAgent }> {
  const trusted = await stage.registered();
  if ((await stage.agent(trusted.agentId))?.enrollment === 'PENDING') await approve(trusted.agentId);
  await eventually(() => trustOf(trusted));
  const stranger = await stage.registered({ agentId: trusted.agentId });
  return { trusted, stranger };
}

describe('an agent that is new', () => {
  it('is trusted on first use under open', async () => {
    await start('open');
    const agent = await stage.registered();
    expect(await stage.agent(agent.agentId)).toMatchObject({ enrollment: 'APPROVED', connected: true });
    expect(await trustOf(agent)).toBe(true);
  });

  it.each(['approval', 'token'])(
    'waits under %s: link open, events untrusted, commands waiting, until it is approved',
    async (enrollment) => {
      await start(enrollment);
      const before = await countAwaiting();
      const agent = await stage.registered();
      const messageId = await stage.send(agent.agentId);
      const early = agent.report('threats', { severity: 'high' });
      expect((await stage.event(agent.agentId, early)).trusted).toBe(false);
      expect(await stage.agent(agent.agentId)).toMatchObject({ enrollment: 'PENDING', connected: true });
      expect(await countAwaiting()).toBe(before + 1);
      expect((await stage.message(messageId)).status).toBe('QUEUED');

      await approve(agent.agentId);
      await stage.untilStatus(messageId, 'DELIVERED');
      expect(await trustOf(agent)).toBe(true);
      expect(agent.isOpen).toBe(true);
      expect(await countAwaiting()).toBe(before);
      // What was stored as untrusted stays so.
      expect((await stage.event(agent.agentId, early)).trusted).toBe(false);
    },
  );

  it('is one of many that are approved at once, by filter, and no other', async () => {
    await start('approval');
    const inside = await Promise.all(
      ['a', 'b', 'c'].map((name) => stage.registered({ agentId: `web-${freshName()}-${name}` })),
    );
    const outside = await stage.registered();
    expect(await approveAll({ search: 'web-' })).toEqual({ approveAgents: 3 });
    for (const agent of inside) expect(await eventually(() => trustOf(agent))).toBe(true);
    expect(await trustOf(outside)).toBe(false);
  });

  it('is refused under closed', async () => {
    await start('closed');
    const agent = await stage.dial();
    expect(await agent.authenticate()).toMatchObject({ success: false, code: 'REGISTRATION_CLOSED' });
    expect(await agent.closed).toMatchObject({ code: 4001 });
  });

  it.skipIf(!hasPostgres())('is refused under closed, where known ones still come in', async () => {
    const env = { AGENT_ENROLLMENT: 'open' };
    stage = await startStage({ env });
    stages.set('open, then closed', stage);
    const known = await stage.registered();
    await stage.gateway.restart({ AGENT_ENROLLMENT: 'closed' });
    const back = await stage.registered({ agentId: known.agentId, key: known.key });
    expect(back.uid).toBe(known.uid);
  });

  it('names an organisation in vain unless enrolment is open', async () => {
    await start('approval');
    const agent = await stage.registered({ facts: { org_id: 'elsewhere' } });
    expect(await stage.agent(agent.agentId)).toMatchObject({ orgId: 'default-org', uid: agent.uid });
  });

  it('comes back with yet another key while it waits, and only the newest link is its own', async () => {
    await start('approval');
    const first = await stage.registered();
    const second = await stage.registered({ agentId: first.agentId });
    expect(second.uid).toBe(first.uid);
    expect(await stage.agent(first.agentId)).toMatchObject({
      keyFingerprint: keyFingerprint(second.publicKey),
      pendingKeyFingerprint: null,
    });
    expect(await first.closed).toMatchObject({ code: 4004 });
    await approve(first.agentId);
    await eventually(() => trustOf(second));
  });
});

describe('a known name with a new key', () => {
  it('is taken at its word under replace: the newer link takes over', async () => {
    await start('open', 'replace');
    const { trusted, stranger } = await strangerBeside();
    expect(stranger.uid).toBe(trusted.uid);
    expect(await trustOf(stranger)).toBe(true);
    expect(await trusted.closed).toMatchObject({ code: 4004 });
  });

  it('is refused under refuse', async () => {
    await start('open', 'refuse');
    const trusted = await stage.registered();
    const stranger = await stage.dial({ agentId: trusted.agentId });
    expect(await stranger.authenticate()).toMatchObject({ success: false, code: 'KEY_CONFLICT' });
    expect(await stranger.closed).toMatchObject({ code: 4001 });
    expect(await trustOf(trusted)).toBe(true);
  });

  it('is quarantined beside the trusted link, which it neither supersedes, nor outranks, nor robs of its commands', async () => {
    await start('open');
    const { trusted, stranger } = await strangerBeside();
    expect(stranger.uid).toBe(trusted.uid);
    expect(await stage.agent(trusted.agentId)).toMatchObject({
      connected: true,
      keyFingerprint: keyFingerprint(trusted.publicKey),
      pendingKeyFingerprint: keyFingerprint(stranger.publicKey),
    });
    expect(await trustOf(stranger)).toBe(false);
    expect(await trustOf(trusted)).toBe(true);
    const before = await epochOf(trusted);
    await stage.registered({ agentId: trusted.agentId });
    expect(await epochOf(trusted)).toBe(before);
    for (let count = 1; count <= 3; count++) {
      await stage.untilStatus(await stage.send(trusted.agentId), 'DELIVERED');
      expect(commandsTo(trusted)).toBe(count);
    }
    expect(commandsTo(stranger)).toBe(0);
    expect(trusted.isOpen).toBe(true);
  });

  it('gets no command while the trusted agent is away, and leaves no trace in its presence', async () => {
    await start('open');
    const { trusted, stranger } = await strangerBeside();
    trusted.terminate();
    await eventually(async () => !(await stage.agent(trusted.agentId))?.connected);
    const messageId = await stage.send(trusted.agentId);
    expect(await trustOf(stranger)).toBe(false);
    stranger.terminate();
    const back = await stage.registered({ agentId: trusted.agentId, key: trusted.key });
    await stage.untilStatus(messageId, 'DELIVERED');
    expect(commandsTo(back)).toBe(1);
    expect(commandsTo(stranger)).toBe(0);
  });

  it('cannot use up the message ids of the trusted agent', async () => {
    await start('open');
    const { trusted, stranger } = await strangerBeside();
    stranger.report('heartbeat', { forged: true }, { id: 'heartbeat_1' });
    await eventually(async () =>
      (await stage.events(trusted.agentId)).some((event) => event.messageId === 'heartbeat_1'),
    );
    trusted.report('heartbeat', {}, { id: 'heartbeat_1' });
    const both = await eventually(async () => {
      const found = (await stage.events(trusted.agentId)).filter((event) => event.messageId === 'heartbeat_1');
      return found.length === 2 ? found : null;
    });
    expect(both).toMatchObject([{ trusted: false }, { trusted: true, payload: {} }]);
  });

  it('cannot carry the agent off into another organisation', async () => {
    await start('open');
    // One that never registers: what its registration would decide is still open.
    const trusted = await stage.authenticated();
    const stranger = await stage.authenticated({ agentId: trusted.agentId });
    await stranger.register({ org_id: 'elsewhere' });
    expect(stranger.uid).not.toBeNull();
    const { agents } = await stage.ask(
      'query ($n: String) { agents(filter: { search: $n }) { nodes { uid orgId } } }',
      {
        n: trusted.agentId,
      },
    );
    expect(agents).toEqual({
      nodes: expect.arrayContaining([
        { uid: expect.any(String), orgId: 'default-org' },
        { uid: stranger.uid, orgId: 'elsewhere' },
      ]),
    });
    expect(await stage.event(trusted.agentId, trusted.report('logs', {}))).toMatchObject({ trusted: true });
  });

  it.each(['approveAgent', 'approveAgents'])(
    'takes over once %s has approved it, on the same link',
    async (mutation) => {
      await start('open');
      const { trusted, stranger } = await strangerBeside();
      if (mutation === 'approveAgent') await approve(trusted.agentId);
      else expect(await approveAll({ agentIds: [trusted.agentId] })).toEqual({ approveAgents: 1 });
      expect(await eventually(() => trustOf(stranger))).toBe(true);
      await stage.untilStatus(await stage.send(trusted.agentId), 'DELIVERED');
      expect([commandsTo(stranger), commandsTo(trusted)]).toEqual([1, 0]);
      expect(await trusted.closed).toMatchObject({ code: 4004 });
      expect(await stage.agent(trusted.agentId)).toMatchObject({ connected: true, pendingKeyFingerprint: null });
    },
  );

  it('is vouched for by a bootstrap token of a key that was approved', async () => {
    await start('open');
    const agent = await stage.registered();
    const key = nativeCrypto.generateSigningKey();
    const restarted = await dialWith(agent, key, agent.bootstrapToken);
    expect(await restarted.authenticate()).toMatchObject({ success: true, message: 'ok' });
    expect(await stage.agent(agent.agentId)).toMatchObject({ uid: agent.uid, pendingKeyFingerprint: null });
  });

  it('is not vouched for by a token of another agent, of a key that waits, or of its own making', async () => {
    await start('open');
    const { trusted, stranger } = await strangerBeside();
    const other = await stage.registered();
    for (const token of [other.bootstrapToken, stranger.bootstrapToken, 'boot_made-up']) {
      const restarted = await dialWith(trusted, nativeCrypto.generateSigningKey(), token);
      expect(await restarted.authenticate()).toMatchObject({ success: true, message: 'waiting for approval' });
    }
    expect(await stage.agent(trusted.agentId)).toMatchObject({ keyFingerprint: keyFingerprint(trusted.publicKey) });
  });

  it('is taken once, and only once, after resetAgentKey', async () => {
    await start('open');
    const agent = await stage.registered();
    await resetKey(agent.agentId);
    const second = await stage.registered({ agentId: agent.agentId });
    expect(second.uid).toBe(agent.uid);
    expect(await trustOf(second)).toBe(true);
    const third = await stage.registered({ agentId: agent.agentId });
    expect(await trustOf(third)).toBe(false);
  });
});

describe('a revoked agent', () => {
  it('is closed with 4003, also in quarantine, and refused from then on, with any key', async () => {
    await start('open');
    const { trusted, stranger } = await strangerBeside();
    await revoke(trusted.agentId);
    expect(await trusted.closed).toMatchObject({ code: 4003, reason: 'The agent is revoked' });
    expect(await stranger.closed).toMatchObject({ code: 4003 });
    for (const key of [trusted.key, nativeCrypto.generateSigningKey()]) {
      const back = await dialWith({ ...trusted, agentId: trusted.agentId, uid: null }, key, trusted.bootstrapToken);
      expect(await back.authenticate()).toMatchObject({ success: false, code: 'AGENT_REVOKED' });
      expect(await back.closed).toMatchObject({ code: 4003 });
    }
  });

  it('comes back with a new key after resetAgentKey, with its uid', async () => {
    await start('open');
    const agent = await stage.registered();
    await revoke(agent.agentId);
    await agent.closed;
    await resetKey(agent.agentId);
    const back = await stage.registered({ agentId: agent.agentId });
    expect(back.uid).toBe(agent.uid);
    expect(await trustOf(back)).toBe(true);
  });
});

it('v1 can be turned off', async () => {
  stage = await startStage({ env: { AGENT_V1: 'off' } });
  stages.set('off', stage);
  const agent = await stage.dial();
  expect(agent.isOpen).toBe(false);
});

function dialWith(
  agent: Pick<RawAgent, 'agentId' | 'uid'>,
  key: RawAgent['key'],
  bootstrapToken: string | null,
): Promise<RawAgent> {
  const headers = {
    'X-Agent-ID': agent.uid ?? agent.agentId,
    ...(agent.uid ? { 'X-Agent-UID': agent.uid } : {}),
    ...(bootstrapToken ? { 'X-Bootstrap-Token': bootstrapToken } : {}),
  };
  return stage.dial({ agentId: agent.agentId, key, headers });
}

/** Of the database itself, where there is one to look into. */
async function epochOf(agent: RawAgent): Promise<number> {
  if (!hasPostgres()) return 0;
  const [row] = await stage.gateway.sql<{ epoch: string }[]>`select epoch from agents where uid = ${agent.uid}`;
  return Number(row?.epoch);
}
