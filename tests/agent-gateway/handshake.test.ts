import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { commandKinds, eventKinds } from '../../src/agent-gateway/wire/channels.ts';
import { eventually } from '../support/eventually.ts';
import { SteppedClock } from './clocks.ts';
import { openCommand } from './open-command.ts';
import { freshName, type RawAgent } from './raw-agent.ts';
import { type Stage, startStage } from './stage.ts';

const clock = new SteppedClock();
let stage: Stage;

beforeAll(async () => {
  stage = await startStage({ clock });
});
afterEach(() => stage.endAgents());
afterAll(() => stage.stop());

/** An agent that has registered, and gone, with a command waiting for it. */
async function withCommandWaiting(): Promise<{ agent: RawAgent; messageId: string }> {
  const agent = await stage.registered();
  agent.terminate();
  await eventually(async () => !(await stage.agent(agent.agentId))?.connected);
  return { agent, messageId: await stage.send(agent.agentId) };
}

/** Long enough for a command to go out, if one may: an event of the agent goes into the database and is read again. */
async function timeForCommands(agent: RawAgent, kind: 'heartbeat' | 'logs'): Promise<void> {
  await stage.event(agent.agentId, agent.report(kind, {}));
  await agent.settled();
}

/** Everything that came to the agent, as channels in order. */
const channels = (agent: RawAgent) =>
  agent.received.map((text) => (text.startsWith('ping') ? 'ping' : JSON.parse(text).channel));

describe('between the authentication and the end of the registration', () => {
  it('nothing is sent but the answers, then the command that waited', async () => {
    const { agent, messageId } = await withCommandWaiting();
    const back = await stage.authenticated({ agentId: agent.agentId, key: agent.key });
    back.socket.ping('heartbeat');
    await timeForCommands(back, 'heartbeat');
    const challenge = await back.beginRegistration();
    // The poll for waiting messages, the health check and the refresh all come round meanwhile.
    clock.advance(11_000);
    await timeForCommands(back, 'logs');
    await back.completeRegistration(challenge);
    await stage.untilStatus(messageId, 'DELIVERED');
    expect(channels(back)).toEqual([
      'auth',
      'agent.registration',
      'agent.registration.complete',
      'backend.policies',
      'ping',
    ]);
  });

  it('an agent that never registers gets its commands after two seconds and not before', async () => {
    const { agent, messageId } = await withCommandWaiting();
    const back = await stage.authenticated({ agentId: agent.agentId, key: agent.key });
    clock.advance(1_999);
    await timeForCommands(back, 'heartbeat');
    expect(channels(back)).toEqual(['auth']);
    clock.advance(1);
    await stage.untilStatus(messageId, 'DELIVERED');
    expect(channels(back)).toEqual(['auth', 'backend.policies', 'ping']);
  });

  it('an agent that shows its uid is past its registration, and gets its commands at once', async () => {
    const { agent, messageId } = await withCommandWaiting();
    const back = await stage.dial({ agentId: agent.agentId, key: agent.key, headers: agent.reconnectHeaders() });
    expect(await back.authenticate()).toMatchObject({ success: true, message: 'ok' });
    await stage.untilStatus(messageId, 'DELIVERED');
    expect(channels(back)).toEqual(['auth', 'backend.policies', 'ping']);
  });

  it('an agent whose registration is broken off is served twelve seconds later', async () => {
    const { agent, messageId } = await withCommandWaiting();
    const back = await stage.authenticated({ agentId: agent.agentId, key: agent.key });
    await back.beginRegistration();
    clock.advance(11_999);
    await timeForCommands(back, 'logs');
    expect((await stage.message(messageId)).status).toBe('QUEUED');
    clock.advance(1);
    await stage.untilStatus(messageId, 'DELIVERED');
  });
});

describe('a registration', () => {
  it('gives the same uid again for the same organisation, name and key, over the socket and over HTTP', async () => {
    const agent = await stage.registered();
    const uid = agent.uid;
    await agent.register();
    expect(agent.uid).toBe(uid);
    const post = async (path: string, body: object) =>
      (await stage.gateway.fetch(path, { method: 'POST', body: JSON.stringify(body), authorization: null })).json();
    const { registration_id, nonce, server_time } = await post('/agents/register/init', {
      ...{ org_id: 'default-org', host_id: agent.agentId, agent_pubkey: agent.publicKey },
    });
    const signed = Buffer.concat([Buffer.from(nonce, 'base64'), Buffer.from(server_time + agent.agentId)]);
    const signature = Buffer.from(agent.key.sign(signed)).toString('base64');
    const answer = await post('/agents/register/complete', { registration_id, host_id: agent.agentId, signature });
    expect(answer).toEqual({ agent_uid: uid, bootstrap_token: expect.any(String) });
  });

  it('is taken again on a link that is ready, and commands wait for its end', async () => {
    const agent = await stage.registered();
    const challenge = await agent.beginRegistration();
    const messageId = await stage.send(agent.agentId);
    clock.advance(4_000);
    await timeForCommands(agent, 'logs');
    expect((await stage.message(messageId)).status).toBe('QUEUED');
    await agent.completeRegistration(challenge);
    await stage.untilStatus(messageId, 'DELIVERED');
  });

  it('of another key than the link authenticated with is refused', async () => {
    const agent = await stage.authenticated();
    const other = Buffer.from(nativeCrypto.generateSigningKey().publicKey).toString('base64');
    expect(await agent.beginRegistration({ agent_pubkey: other })).toMatchObject({ code: 'BAD_PUBKEY' });
  });

  it('that another link began is unknown', async () => {
    const one = await stage.authenticated();
    const other = await stage.authenticated();
    const challenge = await one.beginRegistration();
    expect(await other.completeRegistration(challenge, { hostId: one.agentId })).toMatchObject({
      code: 'UNKNOWN_REGISTRATION',
    });
    await one.completeRegistration(challenge);
    expect(one.uid).not.toBeNull();
  });

  it('can be completed after a wrong signature, and not twice', async () => {
    const agent = await stage.authenticated();
    const challenge = await agent.beginRegistration();
    expect(await agent.completeRegistration(challenge, { hostId: 'someone-else' })).toMatchObject({
      code: 'SIGNATURE_VERIFY_FAILED',
    });
    await agent.completeRegistration(challenge);
    expect(agent.uid).not.toBeNull();
    expect(await agent.completeRegistration(challenge)).toMatchObject({ code: 'UNKNOWN_REGISTRATION' });
  });

  it.each([
    { host_id: '' },
    { host_id: 'x'.repeat(256) },
    { host_id: 7 },
    { platform: { os: 'nul\u0000' } },
    { org_id: 7 },
  ])('with %j in it is refused and says so, and the link stays open', async (facts) => {
    const agent = await stage.authenticated();
    expect(await agent.beginRegistration(facts)).toMatchObject({ code: 'BAD_USER_INPUT' });
    await agent.register();
    expect(agent.uid).not.toBeNull();
  });

  it.each(['', '%', Buffer.from('[]').toString('base64'), Buffer.from('{"__proto__":{}}').toString('base64')])(
    'whose payload is %j is refused and says so',
    async (payload) => {
      const agent = await stage.authenticated();
      agent.socket.send(
        JSON.stringify({ id: 'r', type: 'request', channel: 'agent.registration', payload, timestamp: 1 }),
      );
      expect(JSON.parse((await agent.nextFrame()).payload)).toMatchObject({ code: 'BAD_USER_INPUT' });
    },
  );

  it('that the agent does not live to see leaves nothing behind', async () => {
    const orgId = freshName();
    await expect.poll(() => stage.metric('aegis_links')).toBe(0);
    const first = await stage.registered({ facts: { org_id: orgId } });
    const agent = await stage.authenticated({ agentId: first.agentId });
    const challenge = await agent.beginRegistration({ org_id: orgId });
    const done = agent.completeRegistration(challenge).catch(() => null);
    agent.terminate();
    await Promise.race([done, agent.closed]);
    first.terminate();
    await expect.poll(() => stage.metric('aegis_links')).toBe(0);
  });
});

describe('an organisation that a registration names, under open enrolment', () => {
  it('takes in an agent that is new, which keeps its uid', async () => {
    const orgId = freshName();
    const agent = await stage.authenticated();
    const provisional = await stage.agent(agent.agentId);
    await agent.register({ org_id: orgId });
    expect(agent.uid).toBe(provisional?.uid);
    expect(await stage.agent(agent.agentId)).toMatchObject({ orgId, connected: true });
  });

  it('gives the uid that the name has there to an agent that comes back as a stranger, and the link goes on', async () => {
    const orgId = freshName();
    const agent = await stage.registered({ facts: { org_id: orgId } });
    const restarted = await stage.registered({ agentId: agent.agentId, facts: { org_id: orgId } });
    expect(restarted.uid).toBe(agent.uid);
    clock.advance(1_000);
    expect(await agent.closed).toMatchObject({ code: 4004 });
    const eventId = restarted.report('anomalies', { severity: 'low' }, { channel: `agent.${agent.uid}.anomalies` });
    expect(await stage.event(agent.uid ?? '', eventId)).toMatchObject({ trusted: true });
    await stage.untilStatus(await stage.send(agent.uid ?? ''), 'DELIVERED');
    // Nothing is left of the agent that it was between its authentication and its registration.
    const { agents } = await stage.ask(
      'query ($n: String) { agents(filter: { search: $n }) { nodes { uid orgId } } }',
      {
        n: agent.agentId,
      },
    );
    expect(agents).toEqual({ nodes: [{ uid: agent.uid, orgId }] });
  });

  it('is the one in which an agent is found by its key when it comes back', async () => {
    const orgId = freshName();
    const agent = await stage.registered({ facts: { org_id: orgId } });
    const back = await stage.authenticated({ agentId: agent.agentId, key: agent.key });
    await back.register({ org_id: orgId });
    expect(back.uid).toBe(agent.uid);
  });

  it('does not take an agent along that has registered elsewhere before', async () => {
    const agent = await stage.registered();
    const home = agent.uid;
    await agent.register({ org_id: freshName() });
    expect(agent.uid).not.toBe(home);
    expect(await stage.agent(home ?? '')).toMatchObject({ orgId: 'default-org', connected: false });
    expect(await stage.agent(agent.uid ?? '')).toMatchObject({ connected: true });
  });
});

it('a command is one that the agent can open, signed by the key that it was told', async () => {
  const agent = await stage.dial();
  const answer = await agent.authenticate();
  await agent.register();
  const messageId = await stage.send(agent.agentId, { payload: { op: 'reload', rules: ['é', 1] }, type: 'REQUEST' });
  const frame = await agent.nextFrame();
  const backendKey = Buffer.from(String(answer.backend_key), 'base64');
  expect((await stage.message(frame.id)).id).toBe(messageId);
  expect(frame).toMatchObject({ type: 'request', channel: 'backend.policies', headers: {} });
  expect(Buffer.from(frame.nonce, 'base64')).toHaveLength(12);
  expect(openCommand(agent.key.publicKey, backendKey, JSON.stringify(frame))).toEqual({
    op: 'reload',
    rules: ['é', 1],
  });
  const signed = Buffer.from(`${frame.id}:${frame.type}:${frame.channel}:${frame.timestamp}:${frame.payload}`);
  expect(nativeCrypto.verify(backendKey, signed, Buffer.from(frame.signature, 'base64'))).toBe(true);
});

it('all sixteen channels exist from the first authentication', async () => {
  const agent = await stage.authenticated();
  const data = await stage.ask('query ($r: ID!) { agent(agentId: $r) { channels } }', { r: agent.agentId });
  expect(data).toEqual({
    agent: {
      channels: expect.arrayContaining([
        ...eventKinds.map((kind) => `agent.${agent.agentId}.${kind}`),
        ...commandKinds.map((kind) => `backend.${agent.agentId}.${kind}`),
      ]),
    },
  });
});
