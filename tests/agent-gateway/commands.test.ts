import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { SteppedClock } from './clocks.ts';
import type { RawAgent } from './raw-agent.ts';
import { type Stage, startStage } from './stage.ts';

const clock = new SteppedClock();
let stage: Stage;

beforeAll(async () => {
  // Half of the longest delay, and no chance in it: the first retry comes a second after the barrier, by the database's clock.
  stage = await startStage({ clock, random: () => 0 });
});
afterEach(() => stage.endAgents());
afterAll(() => stage.stop());

const commandsTo = (agent: RawAgent) => agent.received.filter((text) => text.includes('"backend.policies"')).length;

/** Lets the polls come round until a queued message is no longer so; time that went on beyond that would change it again. */
async function untilStatus(id: string, expected: string): Promise<void> {
  await eventually(async () => {
    const { status } = await stage.message(id);
    if (status === 'QUEUED') clock.advance(1_000);
    return status === expected;
  }, 30_000);
}

describe('a command', () => {
  it('is DELIVERED when the pong behind it has come, and SENT until then', async () => {
    const agent = await stage.registered({ answersPings: false });
    const id = await stage.send(agent.agentId);
    await stage.untilStatus(id, 'SENT');
    const ping = await eventually(() => agent.received.find((text) => text.startsWith('ping barrier')));
    await stage.event(agent.agentId, agent.report('logs', {}));
    expect((await stage.message(id)).status).toBe('SENT');
    agent.socket.pong(ping.slice('ping '.length));
    expect(await stage.untilStatus(id, 'DELIVERED')).toMatchObject({ attempts: 1, failure: null });
  });

  it('is not confirmed by a pong to another ping', async () => {
    const agent = await stage.registered({ answersPings: false });
    const id = await stage.send(agent.agentId);
    await stage.untilStatus(id, 'SENT');
    for (const body of ['', 'heartbeat', 'barrier-99']) agent.socket.pong(body);
    await stage.event(agent.agentId, agent.report('logs', {}));
    expect((await stage.message(id)).status).toBe('SENT');
  });

  it('that is not confirmed within ten seconds is sent again', async () => {
    const agent = await stage.registered({ answersPings: false });
    const id = await stage.send(agent.agentId);
    await stage.untilStatus(id, 'SENT');
    clock.advance(9_999);
    await agent.settled();
    expect(await stage.message(id)).toMatchObject({ status: 'SENT', attempts: 1 });
    clock.advance(1);
    await stage.untilStatus(id, 'QUEUED');
    await untilStatus(id, 'SENT');
    expect(await stage.message(id)).toMatchObject({ attempts: 2 });
    expect(commandsTo(agent)).toBe(2);
  });

  it('that may not be sent twice fails, and says why', async () => {
    const agent = await stage.registered({ answersPings: false });
    const id = await stage.send(agent.agentId, { maxRetries: 0 });
    await stage.untilStatus(id, 'SENT');
    clock.advance(10_000);
    const failed = await stage.untilStatus(id, 'FAILED');
    expect(failed.failure).toMatch(/never confirmed/);
  });

  it('to a handoff agent fails at once, and says why', async () => {
    const agent = await stage.authenticated({ dialect: 'handoff' });
    const id = await stage.send(agent.agentId);
    expect(await stage.message(id)).toMatchObject({ status: 'FAILED', failure: expect.stringMatching(/handoff/) });
  });

  it('to an agent that is away waits for it, and goes out in order when it is back', async () => {
    const agent = await stage.registered();
    agent.terminate();
    await eventually(async () => !(await stage.agent(agent.agentId))?.connected);
    const low = await stage.send(agent.agentId, { priority: 'LOW', payload: 'low' });
    const first = await stage.send(agent.agentId, { payload: 'first' });
    const second = await stage.send(agent.agentId, { payload: 'second' });
    const urgent = await stage.send(agent.agentId, { priority: 'URGENT', payload: 'urgent' });
    expect((await stage.message(first)).status).toBe('QUEUED');
    const back = await stage.dial({ agentId: agent.agentId, key: agent.key, headers: agent.reconnectHeaders() });
    await back.authenticate();
    for (const id of [low, first, second, urgent]) await stage.untilStatus(id, 'DELIVERED');
    const order = back.received.filter((text) => text.includes('backend.')).map((text) => JSON.parse(text).id);
    const uuid = (id: string) => Buffer.from(id, 'base64').toString().replace('Message:', '');
    expect(order).toEqual([urgent, first, second, low].map(uuid));
  });

  it('whose time runs out first is EXPIRED, and is not sent any more', async () => {
    const agent = await stage.registered();
    agent.terminate();
    await eventually(async () => !(await stage.agent(agent.agentId))?.connected);
    const id = await stage.send(agent.agentId, { ttl: 1 });
    await untilStatus(id, 'EXPIRED');
    const back = await stage.dial({ agentId: agent.agentId, key: agent.key, headers: agent.reconnectHeaders() });
    await back.authenticate();
    await stage.untilStatus(await stage.send(agent.agentId), 'DELIVERED');
    expect(commandsTo(back)).toBe(1);
  });

  it('of 256 KiB, and ten of them, arrive', async () => {
    const agent = await stage.registered();
    const payload = 'x'.repeat(250_000);
    const ids = await Promise.all(Array.from({ length: 10 }, () => stage.send(agent.agentId, { payload })));
    for (const id of ids) await stage.untilStatus(id, 'DELIVERED', 10_000);
    expect(commandsTo(agent)).toBe(10);
  });
});

describe('a link on which nothing happens', () => {
  it('carries a frame after forty seconds, which the agent drops, so that its read deadline does not strike', async () => {
    const agent = await stage.registered();
    await agent.settled();
    clock.advance(35_000);
    await agent.settled();
    // The ping that this test itself has sent counts: its pong extends the deadline.
    const before = agent.received.length;
    clock.advance(35_000);
    await eventually(() => agent.received.length > before);
    expect(agent.received.join()).not.toContain('keep-alive');
    // Looked at every five seconds.
    clock.advance(10_000);
    const keepAlive = await eventually(() => agent.received.find((text) => text.includes('keep-alive')));
    expect(JSON.parse(keepAlive)).toMatchObject({ type: 'heartbeat', channel: 'backend.heartbeat' });
  });

  it('is asked with a ping after twenty seconds of silence', async () => {
    const agent = await stage.registered();
    await agent.settled();
    agent.received.length = 0;
    clock.advance(15_000);
    await agent.settled();
    expect(agent.received).toEqual([]);
    // Looked at every five seconds.
    clock.advance(25_000);
    await eventually(() => agent.received.some((text) => text.startsWith('ping')));
  });

  it('is cut off 65 seconds after the last sign of life, and the agent is disconnected', async () => {
    const silent = await stage.registered({ answersPings: false });
    const alive = await stage.registered();
    await silent.settled();
    for (let passedMs = 0; passedMs < 65_000; passedMs += 5_000) {
      clock.advance(5_000);
      await alive.settled();
    }
    expect(silent.isOpen).toBe(true);
    clock.advance(5_000);
    expect(await silent.closed).toMatchObject({ code: 1006 });
    expect(alive.isOpen).toBe(true);
    await eventually(async () => !(await stage.agent(silent.agentId))?.connected);
    expect(await stage.agent(alive.agentId)).toMatchObject({ connected: true });
  });
});
