import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { z } from 'zod';
import type { V1Agent } from '../../src/agent-client/index.ts';
import { eventually } from '../support/eventually.ts';
import { type ConsumerStage, nextData, nextResult, startConsumerStage } from './consumer-stage.ts';

let stage: ConsumerStage;
let agent: V1Agent;
const open: AsyncIterableIterator<unknown>[] = [];

beforeAll(async () => {
  stage = await startConsumerStage();
  agent = await stage.connect('sensor');
  await stage.connect('other');
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((stream) => stream.return?.()));
  await stage.untilStreaming(0);
});
afterAll(() => stage.stop());

function subscribe(query: string, variables?: Record<string, unknown>) {
  const stream = stage.subscribe(query, variables);
  open.push(stream);
  return stream;
}

/** Subscribes to events, and waits until the subscription is live. */
async function subscribeLive(query: string, variables?: Record<string, unknown>) {
  const stream = subscribe(query, variables);
  await stage.untilStreaming(open.length);
  return stream;
}

const cursorSchema = z.object({
  events: z.object({ nodes: z.array(z.object({ cursor: z.string(), messageId: z.string() })) }),
});
async function storedCursor(messageId: string): Promise<string> {
  return eventually(async () => {
    const { events } = cursorSchema.parse(await stage.ask('{ events(last: 100) { nodes { cursor messageId } } }'));
    return events.nodes.find((node) => node.messageId === messageId)?.cursor;
  });
}

describe('events', () => {
  test('of each kind come with their typed fields, as they are reported', async () => {
    const anomalies = subscribe(
      'subscription { anomalies { agentId type severity message agent { agentId labels } } }',
    );
    const threats = subscribe('subscription { threats { type severity indicators { value } } }');
    const processes = await subscribeLive('subscription { processes { action pid name } }');
    await agent.sendEvent('anomalies', { type: 'beaconing', severity: 'high', message: 'beacon' });
    await agent.sendEvent('threats', { type: 'c2', severity: 'Critical', indicators: [{ value: '203.0.113.7' }] });
    await agent.sendEvent('processes', { action: 'exec', pid: 42, name: 'curl' });
    expect(await nextData(anomalies)).toEqual({
      anomalies: {
        agentId: 'sensor',
        type: 'beaconing',
        severity: 'HIGH',
        message: 'beacon',
        agent: { agentId: 'sensor', labels: [] },
      },
    });
    expect(await nextData(threats)).toEqual({
      threats: { type: 'c2', severity: 'CRITICAL', indicators: [{ value: '203.0.113.7' }] },
    });
    expect(await nextData(processes)).toEqual({ processes: { action: 'exec', pid: 42, name: 'curl' } });
  });

  test('of any kinds come in one stream, in the order of the agent', async () => {
    const stream = await subscribeLive(
      'subscription { events(kinds: [LOGS, ANOMALIES]) { __typename ... on Event { kind payload } } }',
    );
    for (let number = 0; number < 20; number++)
      await agent.sendEvent(number % 2 === 0 ? 'logs' : 'anomalies', { number });
    await agent.sendEvent('status', { number: -1 });
    for (let number = 0; number < 20; number++) {
      expect(await nextData(stream)).toEqual({
        events: {
          __typename: number % 2 === 0 ? 'GenericEvent' : 'AnomalyEvent',
          kind: number % 2 === 0 ? 'LOGS' : 'ANOMALIES',
          payload: { number },
        },
      });
    }
  });

  test('pass the filter of agent, severity and every label', async () => {
    await stage.ask('mutation { setAgentLabels(agentId: "sensor", add: ["web", "eu"]) { labels } }');
    const byAgent = subscribe('subscription { anomalies(agentId: "other") { payload } }');
    const bySeverity = subscribe('subscription { anomalies(minSeverity: HIGH) { payload } }');
    const byLabels = subscribe('subscription { anomalies(labels: ["eu", "web"]) { payload } }');
    const byForeignLabels = await subscribeLive('subscription { anomalies(labels: ["eu", "db"]) { payload } }');
    const other = await stage.connect('third');
    await stage.ask('mutation { setAgentLabels(agentId: "third", add: ["eu", "db"]) { labels } }');
    await agent.sendEvent('anomalies', { severity: 'low', number: 1 });
    await agent.sendEvent('anomalies', { severity: 'high', number: 2 });
    // Only one agent's events keep an order of their own accord.
    expect(await nextData(bySeverity)).toMatchObject({ anomalies: { payload: { number: 2 } } });
    await other.sendEvent('anomalies', { severity: 'critical', number: 3 });
    expect(await nextData(bySeverity)).toMatchObject({ anomalies: { payload: { number: 3 } } });
    expect(await nextData(byLabels)).toMatchObject({ anomalies: { payload: { number: 1 } } });
    // Had the first two passed, they would have come before this one.
    expect(await nextData(byForeignLabels)).toMatchObject({ anomalies: { payload: { number: 3 } } });
    // Labels count as they are now, not as they were when the subscription began.
    await stage.ask('mutation { setAgentLabels(agentId: "sensor", add: ["db"]) { labels } }');
    await agent.sendEvent('anomalies', { number: 4 });
    expect(await nextData(byForeignLabels)).toMatchObject({ anomalies: { payload: { number: 4 } } });
    await expect(nextData(byAgent, 50)).rejects.toThrow('nothing came');
  });

  test('show the agent as it is when the event comes, not as it was before', async () => {
    const stream = await subscribeLive('subscription { anomalies { agent { note } } }');
    for (const note of ['first', 'second']) {
      await stage.ask('mutation ($note: String!) { setAgentNote(agentId: "sensor", note: $note) { note } }', { note });
      await agent.sendEvent('anomalies', {});
      expect(await nextData(stream)).toEqual({ anomalies: { agent: { note } } });
    }
  });

  test('after a cursor are replayed and then go on live, each once', async () => {
    const ids: string[] = [];
    for (let number = 0; number < 5; number++) ids.push((await agent.sendEvent('tests', { number })).message.id);
    const after = await storedCursor(ids[1] ?? '');
    await storedCursor(ids[4] ?? '');
    const stream = subscribe(
      'subscription ($after: String) { events(kinds: [TESTS], after: $after) { ... on Event { messageId } } }',
      {
        after,
      },
    );
    for (const messageId of ids.slice(2)) expect(await nextData(stream)).toEqual({ events: { messageId } });
    const live = (await agent.sendEvent('tests', { number: 5 })).message.id;
    expect(await nextData(stream)).toEqual({ events: { messageId: live } });
  });

  test('have a cursor with which both pages and streams go on', async () => {
    const stream = await subscribeLive('subscription { anomalies { cursor } }');
    await agent.sendEvent('anomalies', { number: 1 });
    const { anomalies } = z.object({ anomalies: z.object({ cursor: z.string() }) }).parse(await nextData(stream));
    const next = (await agent.sendEvent('anomalies', { number: 2 })).message.id;
    await storedCursor(next);
    const page = await stage.ask(
      'query ($after: String) { events(kinds: [ANOMALIES], after: $after) { nodes { messageId } } }',
      {
        after: anomalies.cursor,
      },
    );
    expect(page).toEqual({ events: { nodes: [{ messageId: next }] } });
  });
});

describe('a subscription that cannot be', () => {
  test.each([
    ['an unknown agent', 'subscription { anomalies(agentId: "nobody") { id } }', 'AGENT_NOT_FOUND'],
    ['an unknown agent', 'subscription { presence(agentId: "nobody") { at } }', 'AGENT_NOT_FOUND'],
    ['a cursor that is none', 'subscription { events(after: "nonsense") { __typename } }', 'CURSOR_INVALID'],
    ['too many labels', `subscription { presence(labels: [${'"x" '.repeat(65)}]) { at } }`, 'BAD_USER_INPUT'],
    ['no subject', 'subscription { messageUpdates { id } }', 'BAD_USER_INPUT'],
    ['two subjects', 'subscription { messageUpdates(agentId: "sensor", messageId: "x") { id } }', 'BAD_USER_INPUT'],
    ['an unknown message', 'subscription { messageUpdates(messageId: "x") { id } }', 'MESSAGE_NOT_FOUND'],
    [
      'an unknown broadcast',
      'subscription { messageUpdates(broadcastId: "3b241101-e2bb-4255-8caf-4136c566a962") { id } }',
      'NOT_FOUND',
    ],
    ['a document that does not validate', 'subscription { nothing }', 'GRAPHQL_VALIDATION_FAILED'],
    ['a document that does not parse', 'subscription {', 'GRAPHQL_PARSE_FAILED'],
    ['a value that cannot be stored', 'subscription { anomalies(agentId: "a\\u0000") { id } }', 'BAD_USER_INPUT'],
  ])('%s is an error with its code, over WebSocket and over SSE', async (_name, query, code) => {
    expect(await codeOverSocket(query)).toBe(code);
    const response = await stream(query);
    expect(await response.text()).toContain(`"code":"${code}"`);
  });

  async function codeOverSocket(query: string): Promise<unknown> {
    try {
      const { errors } = await nextResult(subscribe(query));
      return errors?.[0]?.extensions?.code;
    } catch (error) {
      return Array.isArray(error) ? error[0]?.extensions?.code : error;
    }
  }
});

function stream(query: string, signal?: AbortSignal): Promise<Response> {
  return stage.gateway.fetch('/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
    body: JSON.stringify({ query }),
    ...(signal ? { signal } : {}),
  });
}

describe('over Server-Sent Events', () => {
  test('events come as `next`, and cutting the request ends the subscription', async () => {
    const cut = new AbortController();
    const response = await stream('subscription { anomalies { type } }', cut.signal);
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    await stage.untilStreaming(1);
    await agent.sendEvent('anomalies', { type: 'over-sse' });
    let text = '';
    for await (const chunk of response.body ?? []) {
      text += Buffer.from(chunk).toString();
      if (text.includes('over-sse')) break;
    }
    expect(text).toContain('event: next\ndata: {"data":{"anomalies":{"type":"over-sse"}}}\n\n');
    cut.abort();
    await stage.untilStreaming(0);
  });
});

describe('presence', () => {
  const presenceSchema = z.object({
    presence: z.object({ connected: z.boolean(), agent: z.object({ agentId: z.string(), connected: z.boolean() }) }),
  });
  const presence =
    'subscription ($agentId: ID) { presence(agentId: $agentId) { connected agent { agentId connected } } }';

  /** Connects agents until a stream shows one of them: then it is live. */
  async function connectUntilSeen(stream: ReturnType<typeof subscribe>): Promise<Map<string, V1Agent>> {
    const visitors = new Map<string, V1Agent>();
    let seen = false;
    const first = nextData(stream, 15_000).then(() => {
      seen = true;
    });
    while (!seen) {
      const name = `visitor-${visitors.size}`;
      visitors.set(name, await stage.connect(name));
    }
    await first;
    return visitors;
  }

  test('tells that agents come and go', async () => {
    const stream = subscribe(presence);
    const visitors = await connectUntilSeen(stream);
    await stage.connect('last-visitor');
    const seen = async (connected: boolean, agentId: string) => {
      for (;;) {
        const { presence: change } = presenceSchema.parse(await nextData(stream));
        if (change.agent.agentId === agentId && change.connected === connected) return change;
      }
    };
    expect(await seen(true, 'last-visitor')).toMatchObject({ agent: { connected: true } });
    await visitors.get('visitor-0')?.close();
    expect(await seen(false, 'visitor-0')).toMatchObject({ agent: { connected: false } });
  });

  test('of one agent tells of no other', async () => {
    const everyone = subscribe(presence);
    const one = subscribe(presence, { agentId: 'other' });
    await connectUntilSeen(everyone);
    await expect(nextData(one, 50)).rejects.toThrow('nothing came');
  });
});

describe('messageUpdates', () => {
  const updates = 'subscription ($agentId: ID) { messageUpdates(agentId: $agentId) { id status channel } }';
  const send =
    'mutation ($agentId: ID!) { sendMessage(input: {agentId: $agentId, channel: POLICIES, payload: {op: "reload"}}) { message { id } } }';

  test('shows a message of an agent from queued to delivered', async () => {
    const stream = subscribe(updates, { agentId: 'sensor' });
    const first = nextData(stream, 15_000);
    let live = false;
    void first.then(() => (live = true));
    await eventually(async () => {
      await stage.ask(send, { agentId: 'sensor' });
      return live;
    });
    await first;
    const { sendMessage } = z
      .object({ sendMessage: z.object({ message: z.object({ id: z.string() }) }) })
      .parse(await stage.ask(send, { agentId: 'sensor' }));
    const statuses: unknown[] = [];
    while (statuses.at(-1) !== 'DELIVERED') {
      const { messageUpdates } = z
        .object({ messageUpdates: z.object({ id: z.string(), status: z.string(), channel: z.string() }) })
        .parse(await nextData(stream));
      if (messageUpdates.id !== sendMessage.message.id) continue;
      expect(messageUpdates.channel).toBe('backend.sensor.policies');
      statuses.push(messageUpdates.status);
    }
    expect(statuses).toEqual(['QUEUED', 'SENT', 'DELIVERED']);
  });
});

describe('a subscription ends', () => {
  const query = 'subscription { anomalies { id } }';

  test('when the client completes it', async () => {
    const stream = await subscribeLive(query);
    await stream.return?.();
    await stage.untilStreaming(0);
  });

  test('when the socket is cut, for all that it carried', async () => {
    const socket = new WebSocket(stage.gateway.subscriptionUrl, 'graphql-transport-ws');
    socket.on('open', () => {
      socket.send(
        JSON.stringify({ type: 'connection_init', payload: { authorization: `Bearer ${stage.gateway.token}` } }),
      );
    });
    socket.on('message', (message) => {
      if (!String(message).includes('connection_ack')) return;
      for (let id = 0; id < 25; id++)
        socket.send(JSON.stringify({ id: String(id), type: 'subscribe', payload: { query } }));
    });
    await stage.untilStreaming(25);
    socket.terminate();
    await stage.untilStreaming(0);
  });

  test('when the gateway stops, with 1012 so that stock clients come back', async () => {
    const stopping = await startConsumerStage();
    const client = stopping.socket();
    const closeEvent = new Promise<unknown>((resolve) => {
      client.on('closed', resolve);
    });
    const ended = expect(nextResult(client.iterate({ query }), 15_000)).rejects.toMatchObject({ code: 1012 });
    await stopping.untilStreaming(1);
    await stopping.gateway.stop();
    expect(await closeEvent).toMatchObject({ code: 1012 });
    await ended;
  });

  test('when the gateway stops, over SSE by a cut and not as if all had been said', async () => {
    const stopping = await startConsumerStage();
    const response = await stopping.gateway.fetch('/graphql', {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
      body: JSON.stringify({ query }),
    });
    await stopping.untilStreaming(1);
    const body = expect(response.text()).rejects.toThrow();
    await stopping.gateway.stop();
    await body;
  });
});
