import { describe, expect, it } from 'vitest';
import { deployedHabits, type V1Agent } from '../../src/agent-client/index.ts';
import { readFrame, type Stage, useStage } from './stage.ts';

const stage = useStage();

/** Cuts the connection and waits until the agent knows. */
async function dropped(agent: V1Agent): Promise<void> {
  agent.drop();
  await agent.nextEvent('closed');
}

function channelsSeen({ server }: Stage): string[] {
  return server.seen.entries.flatMap((seen) => (seen.ev === 'frame' ? [seen.channel] : []));
}

describe('heartbeats', () => {
  it('go out every twenty seconds, a ping and then an empty frame, and name the uid', async () => {
    const { server, clock, start } = stage();
    const agent = start();
    await agent.ready();
    const seenBefore = server.seen.count;
    clock.advance(19_999);
    await agent.ping('nothing so far');
    clock.advance(1);
    const { text } = await server.next('frame', ({ channel }) => channel === `agent.${agent.uid}.heartbeat`);
    expect(server.seen.entries.slice(seenBefore)).toMatchObject([
      { ev: 'ping', body: 'nothing so far' },
      { ev: 'ping', body: 'heartbeat' },
      { ev: 'frame' },
    ]);
    expect(readFrame(text)).toMatchObject({
      frame: { id: 'heartbeat_1795436192', type: 'heartbeat', nonce: 'aGVhcnRiZWF0X25vbmNl', headers: {} },
      body: {},
    });
  });

  it('can be sent out of turn', async () => {
    const { server, start } = stage();
    const agent = start();
    await agent.ready();
    await agent.sendHeartbeat();
    await server.next('frame', ({ channel }) => channel === `agent.${agent.uid}.heartbeat`);
  });
});

describe('the read deadline', () => {
  const timings = { heartbeatIntervalMs: 1_000_000 };

  it('ends the connection after sixty seconds of silence, not before', async () => {
    const { clock, start } = stage();
    const agent = start({ timings });
    await agent.ready();
    clock.advance(59_999);
    await agent.sendEvent('logs', {});
    clock.advance(1);
    expect(await agent.nextEvent('closed')).toMatchObject({ link: 1, code: 1006 });
  });

  it('is put off by a data frame and by a pong to a ping of its own', async () => {
    const { server, clock, start } = stage();
    const agent = start({ timings });
    await agent.ready();
    clock.advance(30_000);
    await agent.ping();
    clock.advance(59_999);
    expect(agent.state).toBe('ready');
    server.send(1, server.commandFrame(agent.key.publicKey, 'backend.policies', {}));
    await agent.commands.next();
    clock.advance(59_999);
    await agent.sendEvent('logs', {});
    clock.advance(1);
    await agent.nextEvent('closed');
  });

  it('is not put off by pings of the backend, nor by a pong that answers nothing', async () => {
    const { server, clock, start } = stage();
    const agent = start({ timings });
    await agent.ready();
    clock.advance(30_000);
    server.pong(1, 'unasked');
    server.ping(1, 'alive?');
    await agent.nextEvent('pinged');
    clock.advance(30_000);
    await agent.nextEvent('closed');
  });
});

describe('after a drop', () => {
  it('an agent dials again seven seconds later, with its uid in the headers and its name in the body', async () => {
    const { server, clock, start } = stage();
    const agent = start();
    await agent.ready();
    await dropped(agent);
    expect(agent.state).toBe('waiting');
    clock.advance(6_999);
    expect(agent.linkCount).toBe(1);
    clock.advance(1);
    await agent.ready();
    const { headers } = await server.next('open', ({ peer }) => peer === 2);
    expect(headers).toMatchObject({
      'x-agent-id': agent.uid,
      'x-agent-uid': agent.uid,
      'x-bootstrap-token': agent.bootstrapToken,
    });
    await agent.ping();
    const [auth, heartbeat, ...more] = server.framesOf(2).map(readFrame);
    expect(auth?.body).toMatchObject({ agent_id: 'host-head' });
    expect(heartbeat?.frame).toMatchObject({ type: 'heartbeat', channel: `agent.${agent.uid}.heartbeat` });
    expect(more).toEqual([]);
  });

  it('one failed attempt strands a deployed agent for good', async () => {
    const { server, clock, start } = stage();
    const agent = start();
    await agent.ready();
    await dropped(agent);
    server.script.upgradeStatus = 503;
    clock.advance(7_000);
    await agent.nextEvent('stranded');
    expect(agent.state).toBe('stranded');
    expect(agent.isStranded).toBe(true);
    await expect(agent.ready()).rejects.toMatchObject({ code: 'DIAL_REFUSED', httpStatus: 503 });
    server.script.upgradeStatus = 0;
    clock.advance(3_600_000);
    expect(agent.linkCount).toBe(2);
    expect(clock.pendingTimers).toBe(0);
  });

  it('a failed authentication strands it as well', async () => {
    const { server, clock, start } = stage();
    const agent = start();
    await agent.ready();
    await dropped(agent);
    server.script.grant = { success: false };
    clock.advance(7_000);
    await agent.nextEvent('stranded');
    expect(agent.failureCount).toBe(1);
  });

  it('an agent that tries for ever comes back after a failed attempt', async () => {
    const { server, clock, start } = stage();
    const agent = start({ habits: { reconnects: 'for-ever' } });
    await agent.ready();
    await dropped(agent);
    server.script.upgradeStatus = 503;
    clock.advance(7_000);
    await agent.nextEvent('failed');
    server.script.upgradeStatus = 0;
    clock.advance(7_000);
    await agent.ready();
    expect(agent.linkCount).toBe(3);
  });

  it('an agent that never reconnects does not', async () => {
    const { clock, start } = stage();
    const agent = start({ habits: { reconnects: 'never' } });
    await agent.ready();
    await dropped(agent);
    clock.advance(3_600_000);
    expect(agent.linkCount).toBe(1);
    expect(agent.state).toBe('stranded');
  });
});

describe('flapping', () => {
  const habits = { flaps: 'always' } as const;

  it('replaces a sound connection every seven seconds, and leaves the old one open beside the new', async () => {
    const { server, clock, start } = stage();
    const agent = start({ habits });
    await agent.ready();
    for (const link of [2, 3]) {
      clock.advance(6_999);
      expect(agent.linkCount).toBe(link - 1);
      clock.advance(1);
      expect(await agent.nextEvent('abandoned')).toEqual({ type: 'abandoned', link: link - 1 });
      expect(server.openPeers).toContain(link - 1);
      expect(server.openPeers).toContain(link);
    }
    await agent.sendEvent('logs', {});
    expect((await server.next('frame', ({ channel }) => channel === 'agent.logs')).peer).toBe(3);
  });

  it('registers once', async () => {
    const scene = stage();
    const agent = scene.start({ habits });
    await agent.ready();
    scene.clock.advance(7_000);
    await agent.nextEvent('abandoned');
    expect(channelsSeen(scene).filter((channel) => channel === 'agent.registration')).toHaveLength(1);
  });

  it('sends over the old connection while the new one is still in its handshake', async () => {
    const { server, clock, start } = stage();
    const agent = start({ habits });
    await agent.ready();
    server.script.grant = null;
    clock.advance(7_000);
    await server.next('frame', ({ peer, channel }) => peer === 2 && channel === 'auth');
    await agent.sendEvent('status', {});
    expect((await server.next('frame', ({ channel }) => channel === 'agent.status')).peer).toBe(1);
  });

  it('leaves the old connection unread, pings and all', async () => {
    const { server, clock, start } = stage();
    const agent = start({ habits });
    await agent.ready();
    clock.advance(7_000);
    await agent.nextEvent('abandoned');
    server.send(1, server.commandFrame(agent.key.publicKey, 'backend.policies', {}, 'lost'));
    server.ping(1, 'old');
    for (const body of ['first', 'second', 'third']) {
      server.ping(2, body);
      await server.next('pong', (pong) => pong.peer === 2 && pong.body === body);
    }
    expect(server.seen.entries.filter((seen) => seen.ev === 'pong' && seen.peer === 1)).toEqual([]);
    expect(agent.commands.count).toBe(0);
  });

  it('goes on reading the old connection where that is its habit', async () => {
    const { server, clock, start } = stage();
    const agent = start({ habits: { ...habits, readsAbandoned: true } });
    await agent.ready();
    clock.advance(7_000);
    await agent.nextEvent('abandoned');
    server.send(1, server.commandFrame(agent.key.publicKey, 'backend.policies', {}, 'late'));
    server.ping(1, 'old');
    expect(await agent.commands.next()).toMatchObject({ id: 'late', link: 1 });
    expect(await server.next('pong')).toMatchObject({ peer: 1, body: 'old' });
  });

  it('lets the old connection go after a minute', async () => {
    const { server, clock, start } = stage();
    const agent = start({ habits: { flaps: 'after-drop' } });
    await agent.ready();
    await dropped(agent);
    clock.advance(7_000);
    await agent.ready();
    clock.advance(7_000);
    expect(await agent.nextEvent('abandoned')).toMatchObject({ link: 2 });
    clock.advance(60_000);
    expect(await server.next('close', ({ peer }) => peer === 2)).toMatchObject({ code: 1006 });
  });

  it('begins with the first drop of a deployed agent, not earlier', async () => {
    const { clock, start } = stage();
    const agent = start({ habits: deployedHabits.enveloped });
    await agent.ready();
    clock.advance(50_000);
    expect(agent.linkCount).toBe(1);
    await dropped(agent);
    clock.advance(7_000);
    await agent.ready();
    clock.advance(7_000);
    expect(agent.linkCount).toBe(3);
  });

  it('ends where a new dial fails, and strands the agent when the old connection ends', async () => {
    const { server, clock, start } = stage();
    const agent = start({ habits });
    await agent.ready();
    server.script.upgradeStatus = 503;
    clock.advance(7_000);
    await agent.nextEvent('failed');
    expect(agent).toMatchObject({ state: 'ready', isStranded: true });
    server.script.upgradeStatus = 0;
    server.close(1, 1012);
    expect(await agent.nextEvent('closed')).toMatchObject({ code: 1012 });
    expect(agent.state).toBe('stranded');
    clock.advance(3_600_000);
    expect(agent.linkCount).toBe(2);
  });
});

describe('an agent that flaps and tries for ever', () => {
  it('waits for one dial, not for two, when its old connection ends after a failed attempt', async () => {
    const { server, clock, start } = stage();
    const agent = start({ habits: { flaps: 'always', reconnects: 'for-ever' } });
    await agent.ready();
    server.script.upgradeStatus = 503;
    clock.advance(7_000);
    await agent.nextEvent('failed');
    clock.advance(3_000);
    await dropped(agent);
    clock.advance(6_999);
    expect(agent.linkCount).toBe(2);
    clock.advance(1);
    expect(agent.linkCount).toBe(3);
  });
});

describe('a deployed handoff agent', () => {
  const handoff = { dialect: 'handoff', habits: deployedHabits.handoff } as const;
  const always = (byte: number) => (length: number) => new Uint8Array(length).fill(byte);

  it.each([
    ['five', 0x00, 5_000],
    ['ten', 0xff, 10_000],
  ])('reconnects within five to ten seconds: after %s', async (_name, byte, delayMs) => {
    const { server, clock, start } = stage();
    const agent = start({ ...handoff, randomBytes: always(byte) });
    await agent.ready();
    clock.advance(delayMs - 1);
    expect(agent.linkCount).toBe(1);
    clock.advance(1);
    expect(agent.linkCount).toBe(2);
    expect(await server.next('close')).toMatchObject({ peer: 1, code: 1006 });
    await agent.ready();
  });

  it('goes on after a failure', async () => {
    const { server, clock, start } = stage();
    const agent = start({ ...handoff, randomBytes: always(0) });
    await agent.ready();
    server.script.upgradeStatus = 503;
    clock.advance(5_000);
    await agent.nextEvent('failed');
    server.script.upgradeStatus = 0;
    clock.advance(7_000);
    await agent.ready();
  });
});

describe('the end', () => {
  it.each([
    ['close', 1000],
    ['terminate', 1006],
  ] as const)('by %s is seen as %d, and nothing follows', async (how, code) => {
    const { server, clock, start } = stage();
    const agent = start();
    await agent.ready();
    await agent[how]();
    expect(await server.next('close')).toMatchObject({ code });
    expect(agent.state).toBe('closed');
    expect(clock.pendingTimers).toBe(0);
    clock.advance(3_600_000);
    expect(agent.linkCount).toBe(1);
  });

  it('closes abandoned connections too', async () => {
    const { server, clock, start } = stage();
    const agent = start({ habits: { flaps: 'always' } });
    await agent.ready();
    clock.advance(7_000);
    await agent.nextEvent('abandoned');
    await agent.close(1001, 'going away');
    await server.next('close', ({ peer, code }) => peer === 1 && code === 1006);
    await server.next('close', ({ peer, code }) => peer === 2 && code === 1001);
    expect(clock.pendingTimers).toBe(0);
  });
});
