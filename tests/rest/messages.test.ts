import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type Answer, type Call, problemIn } from './rest-caller.ts';
import { register, registrant } from './rest-registrant.ts';
import { type RestUnderTest, startRest } from './rest-under-test.ts';

const rfc3339 = z.string().regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
const sendSchema = z.strictObject({ message_id: z.uuid(), status: z.enum(['sent', 'queued', 'failed']) });
const broadcastSchema = z.strictObject({
  message_id: z.uuid(),
  sent_to: z.array(z.string()),
  failed: z.array(z.string()),
  queued: z.array(z.string()),
});
const messageSchema = z.strictObject({
  message_id: z.uuid(),
  agent_id: z.string(),
  channel: z.string(),
  status: z.string(),
  attempts: z.int(),
  created_at: rfc3339,
  sent_at: rfc3339.nullable(),
  delivered_at: rfc3339.nullable(),
  expires_at: rfc3339,
  failure: z.string().nullable(),
});

/** Undelivered messages that one agent may have here. */
const queueSize = 5;

let rest: RestUnderTest;
let call: Call;

beforeAll(async () => {
  rest = await startRest({ MESSAGE_QUEUE_SIZE: String(queueSize) });
  call = rest.call;
});
afterAll(() => rest.close());

/** An agent that has registered over HTTP and is not connected. */
async function offlineAgent(name: string): Promise<{ name: string; uid: string }> {
  const { agent_uid } = await register(call, registrant(name));
  return { name, uid: agent_uid };
}

function send(
  ref: string,
  fields: Record<string, unknown> = {},
  headers: Record<string, string> = {},
): Promise<Answer> {
  const body = { channel: 'policies', message: { op: 'reload' }, message_type: 'request', ...fields };
  return call('POST', `/api/v1/agents/${encodeURIComponent(ref)}/send`, { body, headers });
}

function broadcast(fields: Record<string, unknown> = {}, headers: Record<string, string> = {}): Promise<Answer> {
  const body = { channel: 'policies', message: { op: 'reload' }, message_type: 'event', ...fields };
  return call('POST', '/api/v1/agents/broadcast', { body, headers });
}

async function messageOf(id: string) {
  return messageSchema.parse((await call('GET', `/api/v1/messages/${id}`)).json);
}

describe('GET /api/v1/agents/{id}/status', () => {
  it('of an agent that never connected knows neither when it was seen nor a session', async () => {
    const { name, uid } = await offlineAgent('status.offline.example.net');
    for (const ref of [name, uid]) {
      const answer = await call('GET', `/api/v1/agents/${ref}/status`);
      expect(answer).toMatchObject({ status: 200, contentType: 'application/json' });
      expect(answer.json).toMatchObject({ agent_id: name, connected: false, last_seen: null, session_expires: null });
    }
  });

  it.each(['nobody', randomUUID(), 'a%00b', 'x'.repeat(256)])('is a problem 404 for %s', async (ref) => {
    expect(problemIn(await call('GET', `/api/v1/agents/${ref}/status`))).toMatchObject({ code: 'AGENT_NOT_FOUND' });
  });
});

describe('POST /api/v1/agents/{id}/send', () => {
  it('answers 202 queued for an agent that is not connected, and only when the message is durable', async () => {
    const { name } = await offlineAgent('send-1');
    const startedAt = performance.now();
    const answer = await send(name);
    expect(performance.now() - startedAt).toBeLessThan(2_000);
    expect(answer).toMatchObject({ status: 202, contentType: 'application/json' });
    const { message_id, status } = sendSchema.parse(answer.json);
    expect(status).toBe('queued');
    expect(await messageOf(message_id)).toMatchObject({
      message_id,
      agent_id: name,
      channel: 'backend.send-1.policies',
      status: 'queued',
      attempts: 0,
      sent_at: null,
      delivered_at: null,
      failure: null,
    });
  });

  it.each([
    'policies',
    'backend.policies',
    'backend.send.2.policies',
    'backend.{uid}.policies',
    'backend.{UID}.policies',
  ])('takes the channel %s', async (channel) => {
    const { name, uid } = await offlineAgent('send.2');
    const named = channel.replace('{uid}', uid).replace('{UID}', uid.toUpperCase());
    // By name and by uid, so that the channel may name the agent otherwise than the route does.
    for (const ref of [name, uid]) {
      const answer = await send(ref, { channel: named });
      expect(answer.status).toBe(202);
      await cancel(answer);
    }
  });

  it.each([
    ['heartbeat', 'CHANNEL_UNKNOWN'],
    ['', 'CHANNEL_UNKNOWN'],
    ['agent.policies', 'CHANNEL_UNKNOWN'],
    ['backend..policies', 'CHANNEL_UNKNOWN'],
    ['backend.other.policies', 'BAD_USER_INPUT'],
    [7, 'BAD_USER_INPUT'],
    [undefined, 'BAD_USER_INPUT'],
  ])('refuses the channel %s with %s', async (channel, code) => {
    const { name } = await offlineAgent('send-3');
    expect(problemIn(await send(name, { channel }))).toMatchObject({ status: 400, code });
  });

  it.each([{ a: [1, { b: null }] }, 'a plain text', '', 0, false, [1, 2]])(
    'takes any JSON as the message: %j',
    async (message) => {
      const { name } = await offlineAgent('send-4');
      const answer = await send(name, { message });
      const { message_id } = sendSchema.parse(answer.json);
      const query = 'query ($id: ID!) { message(id: $id) { payload } }';
      expect(await rest.graphql(query, { id: message_id })).toEqual({ message: { payload: message } });
      await cancel(answer);
    },
  );

  it.each([
    ['message', undefined],
    ['message', null],
    ['message_type', 'heartbeat'],
    ['message_type', 7],
  ])('refuses %s %j, and names it', async (field, value) => {
    const { name } = await offlineAgent('send-5');
    const problem = problemIn(await send(name, { [field]: value }));
    expect(problem).toMatchObject({ status: 400, code: 'BAD_USER_INPUT' });
    expect(problem.detail).toContain(field);
  });

  it.each(['request', 'response', 'event'])('takes the message type %s', async (message_type) => {
    const { name } = await offlineAgent('send-6');
    const answer = await send(name, { message_type });
    const { message_id } = sendSchema.parse(answer.json);
    const query = 'query ($id: ID!) { message(id: $id) { type } }';
    expect(await rest.graphql(query, { id: message_id })).toEqual({ message: { type: message_type.toUpperCase() } });
    await cancel(answer);
  });

  it('gives the same message to the same idempotency key, and 422 to another body', async () => {
    const { name } = await offlineAgent('send-7');
    const key = { 'idempotency-key': 'key-7' };
    const first = sendSchema.parse((await send(name, {}, key)).json);
    const again = await send(name, {}, key);
    expect(again.status).toBe(202);
    expect(sendSchema.parse(again.json)).toEqual(first);
    expect(problemIn(await send(name, { message: 'another' }, key))).toMatchObject({
      status: 422,
      code: 'IDEMPOTENCY_CONFLICT',
    });
    expect(sendSchema.parse((await send(name)).json).message_id).not.toBe(first.message_id);
  });

  it('takes an idempotency key of 255 characters, and none empty or longer', async () => {
    const { name } = await offlineAgent('send-8');
    expect((await send(name, {}, { 'idempotency-key': 'k'.repeat(255) })).status).toBe(202);
    for (const key of ['', 'k'.repeat(256)])
      expect(problemIn(await send(name, {}, { 'idempotency-key': key }))).toMatchObject({ code: 'BAD_USER_INPUT' });
  });

  it.each(['nobody', randomUUID()])('is a problem 404 for %s', async (ref) => {
    expect(problemIn(await send(ref))).toMatchObject({ status: 404, code: 'AGENT_NOT_FOUND' });
    expect(problemIn(await send(ref, { channel: 'backend.other.policies' }))).toMatchObject({
      code: 'AGENT_NOT_FOUND',
    });
  });

  it('is a problem 403 for a revoked agent', async () => {
    const { name, uid } = await offlineAgent('send-9');
    await revoke(uid);
    expect(problemIn(await send(name))).toMatchObject({ status: 403, code: 'AGENT_REVOKED' });
  });

  it('takes as many messages as the queue holds, and is a problem 429 beyond that', async () => {
    const { name } = await offlineAgent('send-11');
    const answers = await Promise.all(Array.from({ length: queueSize }, () => send(name)));
    expect(answers.map(({ status }) => status)).toEqual(new Array(queueSize).fill(202));
    const tooMany = await send(name);
    expect(problemIn(tooMany)).toMatchObject({ status: 429, code: 'QUEUE_FULL', retryable: true });
    expect(tooMany.headers.get('retry-after')).toBe('1');
  });

  it('takes a message of 256 KiB, and is a problem 413 beyond that', async () => {
    const { name } = await offlineAgent('send-13');
    const ofBytes = (bytes: number) => 'm'.repeat(bytes - '""'.length);
    expect((await send(name, { message: ofBytes(262_144) })).status).toBe(202);
    expect(problemIn(await send(name, { message: ofBytes(262_145) }))).toMatchObject({
      status: 413,
      code: 'PAYLOAD_TOO_LARGE',
    });
  });

  it('refuses a body that is not JSON, and reads one whatever its content type says', async () => {
    const { name } = await offlineAgent('send-12');
    const body = '{"channel":"policies","message":"x","message_type":"event"}';
    const path = `/api/v1/agents/${name}/send`;
    for (const contentType of ['text/plain', 'application/xml'])
      expect((await call('POST', path, { body, headers: { 'content-type': contentType } })).status).toBe(202);
    expect(problemIn(await call('POST', path, { body: '{' }))).toMatchObject({ status: 400, code: 'BAD_USER_INPUT' });
    expect(problemIn(await call('POST', path))).toMatchObject({ status: 400, code: 'BAD_USER_INPUT' });
  });
});

describe('GET /api/v1/messages/{message_id}', () => {
  it('tells what became of a message', async () => {
    const { name } = await offlineAgent('message-1');
    const answer = await send(name);
    const { message_id } = sendSchema.parse(answer.json);
    await cancel(answer);
    expect(await messageOf(message_id)).toMatchObject({ status: 'cancelled' });
    expect(await messageOf(message_id.toUpperCase())).toMatchObject({ message_id });
  });

  it.each(['x', randomUUID(), '%00', '1', 'a'.repeat(300)])('is a problem 404 for %s', async (id) => {
    expect(problemIn(await call('GET', `/api/v1/messages/${id}`))).toMatchObject({
      status: 404,
      code: 'MESSAGE_NOT_FOUND',
    });
  });
});

describe('POST /api/v1/agents/broadcast', () => {
  it('answers within two seconds who got it and who has to wait, and names the broadcast', async () => {
    const { name } = await offlineAgent('broadcast-1');
    const startedAt = performance.now();
    const answer = await broadcast();
    expect(performance.now() - startedAt).toBeLessThan(2_000);
    expect(answer).toMatchObject({ status: 200, contentType: 'application/json' });
    const { message_id, queued, sent_to, failed } = broadcastSchema.parse(answer.json);
    expect(queued).toContain(name);
    const found = await call('GET', `/api/v1/messages/${message_id}`);
    expect(found.status).toBe(200);
    expect(found.json).toEqual({
      message_id,
      channel: 'backend.policies',
      created_at: expect.stringMatching(/Z$/),
      progress: {
        targets: queued.length + sent_to.length + failed.length,
        queued: queued.length,
        sent: 0,
        delivered: sent_to.length,
        failed: failed.length,
        expired: 0,
        cancelled: 0,
      },
    });
  });

  it('does not go to agents that are not approved', async () => {
    const { name, uid } = await offlineAgent('broadcast-2');
    await revoke(uid);
    const { sent_to, failed, queued } = broadcastSchema.parse((await broadcast()).json);
    expect([...sent_to, ...failed, ...queued]).not.toContain(name);
  });

  it('gives the same broadcast to the same idempotency key, and 422 to another body', async () => {
    const key = { 'idempotency-key': 'broadcast-key' };
    const first = broadcastSchema.parse((await broadcast({}, key)).json);
    const again = broadcastSchema.parse((await broadcast({}, key)).json);
    expect(again.message_id).toBe(first.message_id);
    expect(problemIn(await broadcast({ message: 'another' }, key))).toMatchObject({
      status: 422,
      code: 'IDEMPOTENCY_CONFLICT',
    });
  });

  it.each([
    ['backend.some-agent.policies', 'BAD_USER_INPUT'],
    ['heartbeat', 'CHANNEL_UNKNOWN'],
  ])('refuses the channel %s', async (channel, code) => {
    expect(problemIn(await broadcast({ channel }))).toMatchObject({ status: 400, code });
  });
});

async function revoke(uid: string): Promise<void> {
  await rest.graphql('mutation ($id: ID!) { revokeAgent(agentId: $id) { uid } }', { id: uid });
}

/** Takes a message back, so that the small queue has room again. */
async function cancel(answer: Answer): Promise<void> {
  const { message_id } = sendSchema.parse(answer.json);
  await rest.graphql('mutation ($id: ID!) { cancelMessage(id: $id) { status } }', { id: message_id });
}
