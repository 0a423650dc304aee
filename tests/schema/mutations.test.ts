import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { commandChannelName } from '../../src/agent-gateway/wire/channels.ts';
import { eventually } from '../support/eventually.ts';
import { type ConsumerStage, startConsumerStage } from './consumer-stage.ts';

let stage: ConsumerStage;
beforeAll(async () => {
  stage = await startConsumerStage();
  for (const name of ['one', 'two', 'three']) await stage.connect(name);
});
afterAll(() => stage.stop());

const messageSchema = z.object({
  message: z.object({ id: z.string(), status: z.string(), agentId: z.string(), channel: z.string() }),
});
const send = `mutation ($input: SendMessageInput!) { sendMessage(input: $input) {
  message { id status agentId channel type priority payload attempts maxRetries expiresAt createdAt broadcast { id } replies { id } }
} }`;
const sendInput = { agentId: 'one', channel: 'POLICIES', payload: { op: 'reload' } };

async function sent(input: Record<string, unknown>) {
  return messageSchema.parse((await stage.ask(send, { input })).sendMessage).message;
}
const inputError = async (query: string, variables: Record<string, unknown>) => {
  const { answer } = await stage.post({ query, variables });
  const [error] = answer.errors ?? [];
  return error?.extensions.code === 'BAD_USER_INPUT' ? error.message : (error?.extensions.code ?? null);
};

describe('sendMessage', () => {
  test('accepts a message with the defaults of the contract, and delivers it', async () => {
    const { sendMessage } = await stage.ask(send, { input: sendInput });
    expect(sendMessage).toMatchObject({
      message: {
        agentId: 'one',
        channel: commandChannelName('one', 'policies'),
        type: 'REQUEST',
        priority: 'NORMAL',
        payload: { op: 'reload' },
        maxRetries: 3,
        broadcast: null,
        replies: [],
      },
    });
    const { id } = messageSchema.parse(sendMessage).message;
    await eventually(async () => {
      const { message } = messageSchema.parse(
        await stage.ask('query ($id: ID!) { message(id: $id) { id status agentId channel } }', { id }),
      );
      return message.status === 'DELIVERED';
    });
  });

  test('takes any JSON but null as payload', async () => {
    for (const payload of [0, false, '', [], {}, [null], 'text', 1.5])
      expect((await stage.ask(send, { input: { ...sendInput, payload } })).sendMessage).toMatchObject({
        message: { payload },
      });
    expect(await inputError(send, { input: { ...sendInput, payload: null } })).toContain('payload');
    const literal =
      'mutation { sendMessage(input: {agentId: "one", channel: TESTS, payload: {a: [1, 2.5, "x", true, null, WORD], b: {}}}) { message { payload } } }';
    expect(await stage.ask(literal)).toEqual({
      sendMessage: { message: { payload: { a: [1, 2.5, 'x', true, null, 'WORD'], b: {} } } },
    });
  });

  test('gives the same message for the same idempotency key, and an error for another body', async () => {
    const input = { ...sendInput, idempotencyKey: 'once' };
    const first = await sent(input);
    expect((await sent(input)).id).toBe(first.id);
    expect(await stage.codesOf(send, { input: { ...input, payload: 2 } })).toEqual(['IDEMPOTENCY_CONFLICT']);
  });

  test('checks its input on both sides of each limit, and names the field', async () => {
    const fault = (fields: Record<string, unknown>) => inputError(send, { input: { ...sendInput, ...fields } });
    const month = 30 * 24 * 3_600;
    for (const fields of [
      { ttl: 1 },
      { ttl: month },
      { maxRetries: 0 },
      { maxRetries: 100 },
      { idempotencyKey: 'x' },
      { idempotencyKey: 'x'.repeat(255) },
      { ttl: null, maxRetries: null, idempotencyKey: null, type: null, priority: null },
    ])
      expect(await fault(fields)).toBeNull();
    expect(await fault({ ttl: 0 })).toBe(`\`ttl\` must be from 1 to ${month}`);
    expect(await fault({ ttl: month + 1 })).toContain('`ttl`');
    expect(await fault({ maxRetries: -1 })).toContain('`maxRetries`');
    expect(await fault({ maxRetries: 101 })).toContain('`maxRetries`');
    expect(await fault({ idempotencyKey: '' })).toContain('`idempotencyKey`');
    expect(await fault({ idempotencyKey: 'x'.repeat(256) })).toContain('`idempotencyKey`');
    expect(await fault({ agentId: 'x'.repeat(256) })).toContain('`agentId`');
    expect(await fault({ agentId: 'x'.repeat(255) })).toBe('AGENT_NOT_FOUND');
  });
});

describe('broadcast', () => {
  const broadcast = `mutation ($input: BroadcastInput!) { broadcast(input: $input) { broadcast {
    id channel progress { targets } messages(first: 2) { totalCount nodes { agentId type broadcast { id } } pageInfo { hasNextPage endCursor } }
  } } }`;

  test('reaches every approved agent, and pages through its messages', async () => {
    const answer = z
      .object({
        broadcast: z.object({
          broadcast: z.object({
            id: z.string(),
            progress: z.object({ targets: z.literal(3) }),
            messages: z.object({
              totalCount: z.literal(3),
              nodes: z.array(
                z.object({ agentId: z.string(), type: z.literal('EVENT'), broadcast: z.object({ id: z.string() }) }),
              ),
              pageInfo: z.object({ hasNextPage: z.literal(true), endCursor: z.string() }),
            }),
          }),
        }),
      })
      .parse(await stage.ask(broadcast, { input: { channel: 'TESTS', payload: 1 } }));
    const { id, messages } = answer.broadcast.broadcast;
    expect(messages.nodes.map((node) => node.broadcast.id)).toEqual([id, id]);
    const rest = await stage.ask(
      'query ($id: ID!, $after: String) { broadcast(id: $id) { messages(after: $after) { nodes { agentId } } } }',
      { id, after: messages.pageInfo.endCursor },
    );
    const names = [
      ...messages.nodes.map((node) => node.agentId),
      ...(JSON.stringify(rest).match(/one|two|three/g) ?? []),
    ];
    expect(names.sort()).toEqual(['one', 'three', 'two']);
  });

  test('reaches those alone that its filter takes', async () => {
    const answer = await stage.ask(broadcast, {
      input: { channel: 'TESTS', payload: 1, filter: { agentIds: ['two'] } },
    });
    expect(answer).toMatchObject({ broadcast: { broadcast: { progress: { targets: 1 } } } });
    const none = await stage.ask(broadcast, { input: { channel: 'TESTS', payload: 1, filter: { labels: ['none'] } } });
    expect(none).toMatchObject({ broadcast: { broadcast: { progress: { targets: 0 } } } });
  });

  test('is null where there is none', async () => {
    for (const id of ['x', '', '3b241101-e2bb-4255-8caf-4136c566a962'])
      expect(await stage.ask('query ($id: ID!) { broadcast(id: $id) { id } message(id: $id) { id } }', { id })).toEqual(
        {
          broadcast: null,
          message: null,
        },
      );
  });
});

describe('cancelBroadcast', () => {
  const make = 'mutation ($input: BroadcastInput!) { broadcast(input: $input) { broadcast { id } } }';
  const cancel = 'mutation ($id: ID!) { cancelBroadcast(id: $id) { id state abortedReason } }';
  const made = async (input: object) =>
    z
      .object({ broadcast: z.object({ broadcast: z.object({ id: z.string() }) }) })
      .parse(await stage.ask(make, { input: { channel: 'TESTS', payload: 1, ...input } })).broadcast.broadcast.id;

  test('takes back what a paced broadcast has not sent, by node id or UUID', async () => {
    const id = await made({ ratePerSecond: 1 });
    const facts =
      'query ($id: ID!) { broadcast(id: $id) { state ratePerSecond abortAtFailurePercent progress { queued } } }';
    expect(await stage.ask(facts, { id })).toMatchObject({
      broadcast: { state: 'RUNNING', ratePerSecond: 1, abortAtFailurePercent: null },
    });
    const uuid = Buffer.from(id, 'base64url').toString().replace('Broadcast:', '');
    expect(await stage.ask(cancel, { id: uuid })).toMatchObject({ cancelBroadcast: { id, abortedReason: null } });
    await eventually(async () => JSON.stringify(await stage.ask(facts, { id })).includes('"CANCELLED"'));
    expect(await stage.ask(facts, { id })).toMatchObject({ broadcast: { progress: { queued: 0 } } });
  });

  test('is refused for one that is over', async () => {
    const id = await made({ filter: { labels: ['none'] } });
    await eventually(async () =>
      JSON.stringify(await stage.ask('query ($id: ID!) { broadcast(id: $id) { state } }', { id })).includes('FINISHED'),
    );
    expect(await stage.codesOf(cancel, { id })).toEqual(['MESSAGE_FINAL']);
  });

  test('knows no broadcast by what is no id of one', async () => {
    const messageId = Buffer.from('Message:3b241101-e2bb-4255-8caf-4136c566a962').toString('base64url');
    for (const id of ['x', '', '3b241101-e2bb-4255-8caf-4136c566a962', messageId])
      expect(await stage.codesOf(cancel, { id })).toEqual(['NOT_FOUND']);
  });

  test.each([
    ['ratePerSecond', 0],
    ['ratePerSecond', 10_001],
    ['abortAtFailurePercent', 0],
    ['abortAtFailurePercent', 101],
  ])('cannot be needed for a %s of %i, which is refused', async (name, value) => {
    expect(await stage.codesOf(make, { input: { channel: 'TESTS', payload: 1, [name]: value } })).toEqual([
      'BAD_USER_INPUT',
    ]);
  });

  test.each([
    ['ratePerSecond', 10_000],
    ['abortAtFailurePercent', 100],
  ])('has a %s of %i at most', async (name, value) => {
    expect(await made({ filter: { labels: ['none'] }, [name]: value })).toBeTypeOf('string');
  });
});

describe('cancelMessage', () => {
  const cancel = 'mutation ($id: ID!) { cancelMessage(id: $id) { status } }';

  test('takes back what is not confirmed, once, by node id or UUID', async () => {
    const agent = await stage.connect('sleeper');
    await agent.close();
    await eventually(async () =>
      JSON.stringify(await stage.ask('{ agent(agentId: "sleeper") { connected } }')).includes('false'),
    );
    const { id } = await sent({ ...sendInput, agentId: 'sleeper' });
    const uuid = Buffer.from(id, 'base64url').toString().replace('Message:', '');
    expect(await stage.ask(cancel, { id: uuid })).toEqual({ cancelMessage: { status: 'CANCELLED' } });
    expect(await stage.codesOf(cancel, { id })).toEqual(['MESSAGE_FINAL']);
  });

  test('knows no message by what is no id of one', async () => {
    const broadcastId = Buffer.from('Broadcast:3b241101-e2bb-4255-8caf-4136c566a962').toString('base64url');
    for (const id of ['x', '', '3b241101-e2bb-4255-8caf-4136c566a962', broadcastId])
      expect(await stage.codesOf(cancel, { id })).toEqual(['MESSAGE_NOT_FOUND']);
  });
});

describe('agents', () => {
  test('are labelled, noted and have channels switched', async () => {
    const answer = await stage.ask(`mutation {
      a: setAgentLabels(agentId: "two", add: ["b", "a"]) { labels }
      b: setAgentLabels(agentId: "two", add: ["c"], remove: ["a"]) { labels }
      c: setAgentNote(agentId: "two", note: "under watch") { note }
      d: setAgentChannel(agentId: "two", channel: "agent.logs", active: false) { channels }
    }`);
    expect(answer).toMatchObject({ a: { labels: ['a', 'b'] }, b: { labels: ['b', 'c'] }, c: { note: 'under watch' } });
    expect(JSON.stringify(answer.d)).not.toContain('agent.two.logs');
    expect(JSON.stringify(answer.d)).toContain('agent.two.status');
    const on = await stage.ask(
      'mutation { setAgentChannel(agentId: "two", channel: "agent.two.logs", active: true) { channels } }',
    );
    expect(JSON.stringify(on)).toContain('agent.two.logs');
    expect(
      await stage.codesOf(
        'mutation { setAgentChannel(agentId: "two", channel: "agent.nothing", active: true) { uid } }',
      ),
    ).toEqual(['CHANNEL_UNKNOWN']);
  });

  test('show what an earlier field of the same operation changed', async () => {
    const answer = await stage.ask(`mutation {
      sendMessage(input: {agentId: "three", channel: TESTS, payload: 1}) { message { agent { note } } }
      setAgentNote(agentId: "three", note: "changed") { uid }
      again: sendMessage(input: {agentId: "three", channel: TESTS, payload: 1}) { message { agent { note } } }
    }`);
    expect(answer.again).toEqual({ message: { agent: { note: 'changed' } } });
  });

  test('have bounded labels, notes and reasons', async () => {
    const labels = 'mutation ($add: [String!]) { setAgentLabels(agentId: "nobody", add: $add) { uid } }';
    const many = (count: number) => Array.from({ length: count }, (_, index) => `label-${index}`);
    expect(await inputError(labels, { add: many(64) })).toBe('AGENT_NOT_FOUND');
    expect(await inputError(labels, { add: many(65) })).toContain('`add`');
    expect(await inputError(labels, { add: ['x'.repeat(100)] })).toBe('AGENT_NOT_FOUND');
    expect(await inputError(labels, { add: ['ok', 'x'.repeat(101)] })).toContain('`add.1`');
    expect(await inputError(labels, { add: [''] })).toContain('`add.0`');
    const note = 'mutation ($note: String!) { setAgentNote(agentId: "nobody", note: $note) { uid } }';
    expect(await inputError(note, { note: 'x'.repeat(10_000) })).toBe('AGENT_NOT_FOUND');
    expect(await inputError(note, { note: 'x'.repeat(10_001) })).toContain('`note`');
    const revoke = 'mutation ($reason: String) { revokeAgent(agentId: "nobody", reason: $reason) { uid } }';
    expect(await inputError(revoke, { reason: 'x'.repeat(1_000) })).toBe('AGENT_NOT_FOUND');
    expect(await inputError(revoke, { reason: 'x'.repeat(1_001) })).toContain('`reason`');
  });

  test('are revoked, and come back by a reset of their key', async () => {
    await stage.connect('rogue');
    const revoked = await stage.ask('mutation { revokeAgent(agentId: "rogue", reason: "lost") { enrollment } }');
    expect(revoked).toEqual({ revokeAgent: { enrollment: 'REVOKED' } });
    expect(await stage.codesOf(send, { input: { ...sendInput, agentId: 'rogue' } })).toEqual(['AGENT_REVOKED']);
    expect(await stage.codesOf('mutation { approveAgent(agentId: "rogue") { uid } }')).toEqual(['AGENT_REVOKED']);
    expect(await stage.codesOf('mutation { resetAgentKey(agentId: "rogue") { uid } }')).toEqual([]);
  });

  test('of a name that there is not are not found', async () => {
    for (const field of ['approveAgent', 'revokeAgent', 'resetAgentKey', 'disconnectAgent', 'setAgentLabels'])
      expect(await stage.codesOf(`mutation { ${field}(agentId: "nobody") { uid } }`)).toEqual(['AGENT_NOT_FOUND']);
  });
});

describe('approval', () => {
  const events = z.object({ nodes: z.array(z.object({ trusted: z.boolean() })) });
  const untrustedSchema = z.object({ all: events, agent: z.object({ events }) });

  test('is of the key that was meant, and of all that wait', async () => {
    const guarded = await startConsumerStage({ env: { AGENT_ENROLLMENT: 'approval' } });
    try {
      for (const name of ['new-1', 'new-2', 'new-3']) await guarded.connect(name);
      const waiting = '{ gateway { agentsAwaitingApproval } }';
      expect(await guarded.ask(waiting)).toEqual({ gateway: { agentsAwaitingApproval: 3 } });
      const { agent } = z
        .object({ agent: z.object({ keyFingerprint: z.string(), enrollment: z.literal('PENDING') }) })
        .parse(await guarded.ask('{ agent(agentId: "new-1") { keyFingerprint enrollment } }'));
      const approve = 'mutation ($key: String) { approveAgent(agentId: "new-1", keyFingerprint: $key) { enrollment } }';
      expect(await guarded.codesOf(approve, { key: 'x' })).toEqual(['BAD_USER_INPUT']);
      expect(await guarded.codesOf(approve, { key: '0'.repeat(64) })).toEqual(['AGENT_KEY_NOT_PENDING']);
      expect(await guarded.ask(approve, { key: agent.keyFingerprint })).toEqual({
        approveAgent: { enrollment: 'APPROVED' },
      });
      expect(await guarded.ask('mutation { approveAgents(filter: {search: "new"}) }')).toEqual({ approveAgents: 2 });
      expect(await guarded.ask(waiting)).toEqual({ gateway: { agentsAwaitingApproval: 0 } });
    } finally {
      await guarded.stop();
    }
  });

  test('shows untrusted events to those alone who ask for them', async () => {
    const guarded = await startConsumerStage({ env: { AGENT_ENROLLMENT: 'approval' } });
    try {
      const agent = await guarded.connect('stranger');
      const all = guarded.subscribe('subscription { anomalies(includeUntrusted: true) { trusted payload } }');
      const trustedOnly = guarded.subscribe('subscription { anomalies { trusted payload } }');
      const [first, second] = [all.next(), trustedOnly.next()];
      await guarded.untilStreaming(2);
      await agent.sendEvent('anomalies', { number: 1 });
      expect((await first).value).toEqual({ data: { anomalies: { trusted: false, payload: { number: 1 } } } });
      await guarded.ask('mutation { approveAgent(agentId: "stranger") { uid } }');
      await eventually(async () => {
        await agent.sendEvent('anomalies', { number: 2 });
        return JSON.stringify(await guarded.ask('{ events(kinds: [ANOMALIES]) { nodes { id } } }')).includes('"id"');
      });
      expect((await second).value).toEqual({ data: { anomalies: { trusted: true, payload: { number: 2 } } } });
      const counts = untrustedSchema.parse(
        await guarded.ask(`{
          all: events(kinds: [ANOMALIES], includeUntrusted: true) { nodes { trusted } }
          agent(agentId: "stranger") { events(kinds: [ANOMALIES]) { nodes { trusted } } }
        }`),
      );
      expect(counts.all.nodes[0]).toEqual({ trusted: false });
      expect(counts.agent.events.nodes.every((event) => event.trusted)).toBe(true);
    } finally {
      await guarded.stop();
    }
  });
});
