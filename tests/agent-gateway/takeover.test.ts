import { createClient } from 'graphql-ws';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { z } from 'zod';
import { eventually } from '../support/eventually.ts';
import type { RawAgent } from './raw-agent.ts';
import { type Stage, startStage } from './stage.ts';

let stage: Stage;
beforeAll(async () => {
  stage = await startStage();
});
afterEach(() => stage.endAgents());
afterAll(() => stage.stop());

const again = (agent: RawAgent) =>
  stage.dial({ agentId: agent.agentId, key: agent.key, headers: agent.reconnectHeaders() });

async function reconnected(agent: RawAgent): Promise<RawAgent> {
  const newer = await again(agent);
  newer.uid = agent.uid;
  newer.bootstrapToken = agent.bootstrapToken;
  expect(await newer.authenticate()).toMatchObject({ success: true });
  return newer;
}

/** What the presence subscription says of the agent from now on. */
async function watchPresence(agentId: string): Promise<{ readonly seen: boolean[]; end(): Promise<void> }> {
  const client = createClient({
    url: stage.gateway.subscriptionUrl,
    webSocketImpl: WebSocket,
    connectionParams: { authorization: `Bearer ${stage.gateway.token}` },
    lazy: false,
    retryAttempts: 0,
  });
  const seen: boolean[] = [];
  const shape = z.object({ presence: z.object({ connected: z.boolean() }) });
  client.subscribe(
    { query: 'subscription ($a: ID) { presence(agentId: $a) { connected } }', variables: { a: agentId } },
    { next: ({ data }) => seen.push(shape.parse(data).presence.connected), error: () => {}, complete: () => {} },
  );
  await eventually(async () => (await stage.metric('aegis_subscriptions')) >= 0);
  return { seen, end: async () => client.dispose() };
}

describe('a newer link of the same agent', () => {
  it('takes over at once; the older one closes with 4004 within three seconds', async () => {
    const older = await stage.registered();
    const startedAt = performance.now();
    const newer = await reconnected(older);
    const messageId = await stage.send(older.agentId);
    await stage.untilStatus(messageId, 'DELIVERED', 1_000);
    expect(newer.received.some((text) => text.includes('backend.policies'))).toBe(true);
    expect(older.received.some((text) => text.includes('backend.policies'))).toBe(false);
    expect(await older.closed).toMatchObject({ code: 4004, reason: 'A newer connection took over' });
    expect(performance.now() - startedAt).toBeLessThan(3_000);
    expect(newer.isOpen).toBe(true);
  });

  it('does not let presence flap', async () => {
    const first = await stage.registered();
    const presence = await watchPresence(first.agentId);
    // The subscription is live once it has told of changes that were made on purpose, and has nothing more to tell.
    let agent = first;
    await eventually(async () => {
      presence.seen.length = 0;
      agent.terminate();
      await eventually(async () => !(await stage.agent(first.agentId))?.connected);
      agent = await reconnected(agent);
      return eventually(() => presence.seen.join() === 'false,true', 2_000).catch(() => false);
    }, 20_000);
    presence.seen.length = 0;
    const flapping: RawAgent[] = [agent];
    for (let round = 0; round < 5; round++) flapping.push(await reconnected(first));
    for (const older of flapping.slice(0, -1)) expect(await older.closed).toMatchObject({ code: 4004 });
    expect(await stage.agent(first.agentId)).toMatchObject({ connected: true });
    flapping.at(-1)?.terminate();
    await eventually(() => presence.seen.length > 0);
    expect(presence.seen).toEqual([false]);
    await presence.end();
  });

  it('costs no event that was on its way over the older one, and none twice', async () => {
    const older = await stage.registered();
    const ids: string[] = [];
    const send = (agent: RawAgent, count: number) => {
      for (let index = 0; index < count; index++) ids.push(agent.report('anomalies', { severity: 'low' }));
    };
    send(older, 100);
    const newer = await again(older);
    newer.uid = older.uid;
    newer.socket.send(newer.encodeAuthentication(newer.request()));
    send(older, 100);
    expect(await newer.readAuthAnswer()).toMatchObject({ success: true });
    send(older, 50);
    // What the agent is not sure of it says again on its new link.
    const repeated = older.message('threats', { severity: 'high' }, { id: 'said-twice' });
    for (const agent of [older, newer]) agent.socket.send(JSON.stringify(repeated));
    send(newer, 50);
    await older.closed;
    const stored = (await stage.events(older.agentId)).map((event) => event.messageId);
    expect(new Set(stored)).toEqual(new Set([...ids, 'said-twice']));
    expect(stored).toHaveLength(ids.length + 1);
  });

  it('that comes at the same moment as others leaves exactly one, and that one works', async () => {
    const first = await stage.registered();
    const rivals = await Promise.all(Array.from({ length: 8 }, () => again(first)));
    await Promise.all(rivals.map((rival) => rival.authenticate()));
    await first.closed;
    const survivors = await eventually(() => {
      const open = rivals.filter((rival) => rival.isOpen);
      return open.length === 1 ? open : null;
    });
    await stage.untilStatus(await stage.send(first.agentId), 'DELIVERED');
    expect(survivors[0]?.received.some((text) => text.includes('backend.policies'))).toBe(true);
    expect(await stage.agent(first.agentId)).toMatchObject({ connected: true });
  });

  it('makes a command that the older one has not read come again on the newer one', async () => {
    const older = await stage.registered({ answersPings: false });
    const messageId = await stage.send(older.agentId);
    await stage.untilStatus(messageId, 'SENT');
    const newer = await reconnected(older);
    const delivered = await stage.untilStatus(messageId, 'DELIVERED', 8_000);
    expect(delivered.attempts).toBe(2);
    expect(newer.received.some((text) => text.includes('backend.policies'))).toBe(true);
  });
});

describe('an agent that is disconnected by an operator', () => {
  it('is closed with 4005 and may come back at once', async () => {
    const agent = await stage.registered();
    await stage.ask('mutation ($ref: ID!) { disconnectAgent(agentId: $ref) { uid } }', { ref: agent.agentId });
    expect(await agent.closed).toMatchObject({ code: 4005 });
    const back = await reconnected(agent);
    expect(back.isOpen).toBe(true);
  });
});
