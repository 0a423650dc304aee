import { once } from 'node:events';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { z } from 'zod';
import {
  authenticationRequest,
  encodeEnvelopedAuthentication,
  startV1Agent,
  type V1Agent,
  type V1AgentOptions,
} from '../../src/agent-client/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { commandKinds, eventKinds } from '../../src/agent-gateway/wire/channels.ts';
import { type Call, problemIn } from './rest-caller.ts';
import { register, registrant } from './rest-registrant.ts';
import { type RestUnderTest, startRest } from './rest-under-test.ts';

const statusSchema = z.strictObject({
  agent_id: z.string(),
  connected: z.boolean(),
  last_seen: z.iso.datetime().nullable(),
  channels: z.array(z.string()),
  session_expires: z.iso.datetime().nullable(),
});
const messageIdSchema = z.object({ message_id: z.uuid() });

let rest: RestUnderTest;
let call: Call;
const agents: V1Agent[] = [];

beforeAll(async () => {
  rest = await startRest();
  call = rest.call;
});
afterEach(async () => {
  await Promise.all(agents.splice(0).map((agent) => agent.close()));
});
afterAll(() => rest.close());

async function connect(agentId: string, options: Partial<V1AgentOptions> = {}): Promise<V1Agent> {
  const agent = startV1Agent({ url: rest.agentUrl, agentId, suite: nativeCrypto, ...options });
  agents.push(agent);
  await agent.ready();
  return agent;
}

const statusOf = async (ref: string) => (await call('GET', `/api/v1/agents/${ref}/status`)).json;

const sendTo = (ref: string, fields: Record<string, unknown> = {}) =>
  call('POST', `/api/v1/agents/${ref}/send`, {
    body: { channel: 'policies', message: { op: 'reload' }, message_type: 'request', ...fields },
  });

async function switchOff(agentId: string, channel: string): Promise<void> {
  const mutation =
    'mutation ($a: ID!, $c: String!) { setAgentChannel(agentId: $a, channel: $c, active: false) { uid } }';
  await rest.graphql(mutation, { a: agentId, c: channel });
}

const messageOf = async (answer: { readonly json: unknown }) => {
  const { message_id } = messageIdSchema.parse(answer.json);
  return (await call('GET', `/api/v1/messages/${message_id}`)).json;
};

describe('the status of a connected agent', () => {
  it('tells its session and all sixteen channels by their long names', async () => {
    await connect('web.example.net');
    const status = statusSchema.parse(await statusOf('web.example.net'));
    expect(status).toMatchObject({ agent_id: 'web.example.net', connected: true });
    expect([...status.channels].sort()).toEqual(
      [
        ...eventKinds.map((kind) => `agent.web.example.net.${kind}`),
        ...commandKinds.map((kind) => `backend.web.example.net.${kind}`),
      ].sort(),
    );
    expect(Date.parse(status.session_expires ?? '')).toBeGreaterThan(Date.now());
    expect(Math.abs(Date.parse(status.last_seen ?? '') - Date.now())).toBeLessThan(60_000);
  });

  it('leaves out channels that are switched off', async () => {
    const agent = await connect('switched');
    await switchOff(agent.agentId, 'backend.tests');
    const { channels } = statusSchema.parse(await statusOf('switched'));
    expect(channels).toHaveLength(15);
    expect(channels).not.toContain('backend.switched.tests');
  });

  it('tells when it was last seen, and no session, once it has gone', async () => {
    const agent = await connect('gone');
    await agent.close();
    await expect
      .poll(() => statusOf('gone'), { timeout: 5_000 })
      .toMatchObject({ connected: false, session_expires: null });
    expect(statusSchema.parse(await statusOf('gone')).last_seen).not.toBeNull();
  });
});

describe('a message to a connected agent', () => {
  it.each([{ op: 'reload', rules: [1, 'é'] }, 'a plain text'])(
    'is sent, arrives and is delivered: %j',
    async (message) => {
      const agent = await connect('target');
      const answer = await sendTo('target', { message, channel: 'backend.target.policies' });
      expect(answer).toMatchObject({ status: 200, json: { status: 'sent' } });
      const command = await agent.commands.next();
      expect(command).toMatchObject({ channel: 'backend.policies', body: message });
      await expect
        .poll(() => messageOf(answer), { timeout: 5_000 })
        .toMatchObject({
          agent_id: 'target',
          channel: 'backend.target.policies',
          status: 'delivered',
          attempts: 1,
          sent_at: expect.any(String),
          delivered_at: expect.any(String),
          failure: null,
        });
    },
  );

  it('that was queued goes out when it comes back', async () => {
    const { seed, agentId } = await connect('returning');
    await Promise.all(agents.splice(0).map((agent) => agent.close()));
    await expect.poll(() => statusOf(agentId), { timeout: 5_000 }).toMatchObject({ connected: false });
    const answer = await sendTo(agentId);
    expect(answer).toMatchObject({ status: 202, json: { status: 'queued' } });
    const again = await connect(agentId, { seed });
    await again.commands.next();
    await expect.poll(() => messageOf(answer), { timeout: 5_000 }).toMatchObject({ status: 'delivered' });
  });

  it('is a problem 409 where the channel is switched off', async () => {
    const { agentId } = await connect('closed-channel');
    await switchOff(agentId, 'backend.tests');
    expect(problemIn(await sendTo(agentId, { channel: 'tests' }))).toMatchObject({
      status: 409,
      code: 'CHANNEL_CLOSED',
    });
    expect(await sendTo(agentId)).toMatchObject({ status: 200 });
  });

  it('that it could not read fails at once and says why', async () => {
    const { agentId } = await connect('handoff', { dialect: 'handoff' });
    const answer = await sendTo(agentId);
    expect(answer).toMatchObject({ status: 200, json: { status: 'failed' } });
    expect(await messageOf(answer)).toMatchObject({ status: 'failed', failure: expect.stringMatching(/./) });
  });
});

describe('an agent that is connected and cannot be written to yet', () => {
  it('keeps send waiting for one second and a broadcast for less than two', async () => {
    const socket = await authenticateOnly('in-handshake');
    const body = { channel: 'policies', message: 'all of you', message_type: 'event' };
    const [sent, broadcast] = await Promise.all([
      timed(() => sendTo('in-handshake')),
      timed(() => call('POST', '/api/v1/agents/broadcast', { body })),
    ]);
    socket.terminate();
    expect(sent.answer).toMatchObject({ status: 202, json: { status: 'queued' } });
    expect(broadcast.answer.json).toMatchObject({ queued: expect.arrayContaining(['in-handshake']) });
    expect(sent.tookMs).toBeGreaterThan(990);
    expect(sent.tookMs).toBeLessThan(2_000);
    expect(broadcast.tookMs).toBeGreaterThan(1_490);
    expect(broadcast.tookMs).toBeLessThan(2_000);
  });
});

describe('a broadcast', () => {
  it('tells to whom it was sent, for whom it failed and who has to wait', async () => {
    const here = [await connect('here-1'), await connect('here-2')];
    await connect('sealed', { dialect: 'handoff' });
    await register(call, registrant('away'));
    const body = { channel: 'policies', message: 'all of you', message_type: 'event' };
    const startedAt = performance.now();
    const answer = await call('POST', '/api/v1/agents/broadcast', { body });
    expect(performance.now() - startedAt).toBeLessThan(2_000);
    expect(answer).toMatchObject({
      status: 200,
      json: {
        sent_to: expect.arrayContaining(['here-1', 'here-2']),
        failed: expect.arrayContaining(['sealed']),
        queued: expect.arrayContaining(['away']),
      },
    });
    for (const agent of here) expect(await agent.commands.next()).toMatchObject({ body: 'all of you' });
  });
});

async function timed<Answered>(ask: () => Promise<Answered>): Promise<{ answer: Answered; tookMs: number }> {
  const startedAt = performance.now();
  return { answer: await ask(), tookMs: performance.now() - startedAt };
}

/** A link of an agent that has authenticated and is about to register: nothing may be written to it now (agent-wire). */
async function authenticateOnly(agentId: string): Promise<WebSocket> {
  const key = nativeCrypto.generateSigningKey();
  const headers = {
    'x-agent-id': agentId,
    'x-agent-public-key': Buffer.from(key.publicKey).toString('base64'),
  };
  const socket = new WebSocket(rest.agentUrl, { headers });
  await once(socket, 'open');
  const timestamp = Math.floor(Date.now() / 1_000);
  const request = authenticationRequest({ key, agentId, timestamp, nonce: nativeCrypto.randomBytes(16) });
  socket.send(encodeEnvelopedAuthentication('auth_1', request));
  await once(socket, 'message');
  return socket;
}
