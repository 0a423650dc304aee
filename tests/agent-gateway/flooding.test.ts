import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import type { RawAgent } from './raw-agent.ts';
import { type Stage, startStage } from './stage.ts';

const framesPerSecond = 20;
let stage: Stage;

// A gateway for each: what one flood has left in the kernel is read for long after.
beforeEach(async () => {
  stage = await startStage({
    env: { AGENT_FRAMES_PER_SECOND: `${framesPerSecond}`, AGENT_BYTES_PER_SECOND: '65536' },
  });
});
afterEach(() => stage.stop());

/** Everything that it sends is stored, one after the other. */
async function reportsInPeace(quiet: RawAgent): Promise<void> {
  for (let n = 0; n < 10; n++) await stage.event(quiet.agentId, quiet.report('anomalies', { n }));
}

function times(count: number, work: () => void): void {
  for (let done = 0; done < count; done++) work();
}

const padding = 'x'.repeat(2_000);

describe('an agent that floods', () => {
  it.each<[string, (flooder: RawAgent) => void]>([
    ['sound frames', (flooder) => times(6_000, () => flooder.report('logs', { padding }))],
    ['wrong signatures', (flooder) => times(6_000, () => flooder.report('logs', { padding }, { signature: 'x' }))],
    ['what is no message', (flooder) => times(3_000, () => flooder.socket.send('{'.repeat(4_000)))],
    ['huge frames', (flooder) => times(60, () => flooder.report('logs', { padding: 'x'.repeat(180_000) }))],
    ['pongs', (flooder) => times(80_000, () => flooder.socket.pong('x'.repeat(125)))],
    ['binary frames', (flooder) => times(3_000, () => flooder.socket.send(Buffer.alloc(4_000)))],
  ])('with %s waits, stays connected, and slows no other', async (_what, flood) => {
    const [flooder, quiet] = [await stage.registered(), await stage.registered()];
    flood(flooder);
    await eventually(async () => (await stage.metric('aegis_agents_paused')) === 1);
    await reportsInPeace(quiet);
    expect(flooder.isOpen).toBe(true);
    // All that the other one had to say was stored before the gateway had as much as read the flood.
    expect(flooder.socket.bufferedAmount).toBeGreaterThan(0);
  });

  it.each<[string, number, (flooder: RawAgent) => void]>([
    ['tiny pieces', 1008, (flooder) => times(50_000, () => flooder.socket.send('x', { fin: false }))],
    ['pings', 1006, (flooder) => times(80_000, () => flooder.socket.ping('x'.repeat(125)))],
  ])('with %s is cut off, and slows no other', async (_what, code, flood) => {
    const [flooder, quiet] = [await stage.registered(), await stage.registered()];
    flood(flooder);
    await reportsInPeace(quiet);
    expect(await flooder.closed).toMatchObject({ code });
  });

  it('brings no new allowance with a new link', async () => {
    const flooder = await stage.registered();
    times(6_000, () => flooder.report('logs', { padding }));
    await eventually(async () => (await stage.metric('aegis_agents_paused')) === 1);
    const back = await stage.authenticated({
      agentId: flooder.agentId,
      key: flooder.key,
      headers: flooder.reconnectHeaders(),
    });
    back.report('status', {});
    await eventually(async () => (await stage.metric('aegis_agents_paused')) === 2);
  });
});

it('an agent that sends more than its allowance for once is only made to wait', async () => {
  const agent = await stage.registered();
  const sent = Array.from({ length: 7 * framesPerSecond }, (_none, n) => agent.report('anomalies', { n }));
  await eventually(async () => (await stage.metric('aegis_agents_paused')) === 1);
  await eventually(async () => (await stage.events(agent.agentId)).length === sent.length, 30_000);
  expect((await stage.events(agent.agentId)).map(({ messageId }) => messageId)).toEqual(sent);
});

it('what an agent sends right before it goes is stored, however much came at once', async () => {
  const agent = await stage.registered();
  const sent = Array.from({ length: 60 }, (_none, n) => agent.report('anomalies', { n }));
  agent.socket.close(1000);
  await agent.closed;
  await eventually(async () => (await stage.events(agent.agentId)).length === sent.length);
});
