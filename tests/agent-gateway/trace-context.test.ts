import { createClient } from 'graphql-ws';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { eventually } from '../support/eventually.ts';
import { type Stage, startStage } from './stage.ts';

let stage: Stage;
beforeAll(async () => {
  stage = await startStage();
});
afterEach(() => stage.endAgents());
afterAll(() => stage.stop());

/** A place in a trace, told from others by its last digit. */
const place = (digit: string) => `00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333${digit}-01`;

const send = 'mutation ($input: SendMessageInput!) { sendMessage(input: $input) { message { id } } }';
const broadcast = 'mutation ($input: BroadcastInput!) { broadcast(input: $input) { broadcast { id } } }';
const draft = { channel: 'POLICIES', payload: {} };

/** Asks over HTTP, beneath this place. */
async function ask(query: string, input: object, traceparent: string): Promise<void> {
  const response = await stage.gateway.fetch('/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json', traceparent },
    body: JSON.stringify({ query, variables: { input } }),
  });
  expect(await response.json()).not.toHaveProperty('errors');
}

/** Asks over a socket, whose places are those of its upgrade, of `connection_init` and of the operation. */
async function askOverSocket(
  input: object,
  places: { readonly upgrade?: string; readonly init?: unknown; readonly operation?: unknown },
): Promise<void> {
  const headers = places.upgrade === undefined ? {} : { traceparent: places.upgrade };
  class Socket extends WebSocket {
    constructor(url: string, protocols: string) {
      super(url, protocols, { headers });
    }
  }
  const client = createClient({
    url: stage.gateway.subscriptionUrl,
    webSocketImpl: Socket,
    connectionParams: { authorization: `Bearer ${stage.gateway.token}`, Traceparent: places.init },
  });
  const extensions = { traceparent: places.operation };
  for await (const result of client.iterate({ query: send, variables: { input }, extensions }))
    expect(result).not.toHaveProperty('errors');
  await client.dispose();
}

describe('the trace context of whoever sends a command', () => {
  it('reaches the agent over v2, whether it came over GraphQL or REST, to one or to many', async () => {
    const agent = await stage.connectedV2();
    await ask(send, { ...draft, agentId: agent.name }, place('1'));
    await ask(broadcast, draft, place('2'));
    for (const [path, digit] of [
      [`/api/v1/agents/${agent.name}/send`, '3'],
      ['/api/v1/agents/broadcast', '4'],
    ] as const)
      await stage.gateway.fetch(path, {
        method: 'POST',
        headers: { 'content-type': 'application/json', traceparent: place(digit) },
        body: JSON.stringify({ channel: 'policies', message: {}, message_type: 'request' }),
      });
    for (const digit of ['1', '2', '3', '4']) {
      const { id, headers } = await agent.next();
      expect(headers.traceparent).toBe(place(digit));
      agent.acknowledge(id);
    }
  });

  it('comes over a socket with the operation, or with connection_init, or with the upgrade', async () => {
    const agent = await stage.connectedV2();
    const input = { ...draft, agentId: agent.name };
    const [upgrade, init, operation] = [place('5'), place('6'), place('7')];
    await askOverSocket(input, { upgrade, init, operation });
    await askOverSocket(input, { upgrade, init, operation: 'no place' });
    await askOverSocket(input, { upgrade, init: { no: 'text' } });
    await askOverSocket(input, {});
    for (const expected of [operation, init, upgrade, null]) {
      const { id, headers } = await agent.next();
      expect(headers.traceparent).toBe(expected);
      agent.acknowledge(id);
    }
  });

  it.each(['', 'nonsense', `${place('1')}-`, place('1').toUpperCase(), `ff${place('1').slice(2)}`])(
    'is left out where it is none: %j',
    async (unsound) => {
      const agent = await stage.connectedV2();
      await ask(send, { ...draft, agentId: agent.name }, unsound);
      expect((await agent.next()).headers.traceparent).toBeNull();
    },
  );

  it('changes nothing of what v1 agents get', async () => {
    const agent = await stage.registered();
    await ask(send, { ...draft, agentId: agent.agentId }, place('1'));
    const text = await eventually(() => agent.received.find((frame) => frame.includes('"backend.policies"')));
    expect(JSON.parse(text)).toMatchObject({ headers: {} });
    expect(text).not.toContain('0af7651916cd43dd8448eb211c80319c');
  });
});
