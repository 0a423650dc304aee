import { describe, expect, it } from 'vitest';
import { AgentFailure } from '../../src/agent-client/index.ts';
import { nobleCrypto } from '../../src/agent-gateway/crypto/noble.ts';
import { readFrame, useStage } from './stage.ts';

const stage = useStage();

async function failureOf(ready: Promise<void>): Promise<AgentFailure> {
  const failure: unknown = await ready.then(
    () => null,
    (error: unknown) => error,
  );
  if (!(failure instanceof AgentFailure)) throw new Error(`expected an AgentFailure, got ${String(failure)}`);
  return failure;
}

describe('the enveloped handshake', () => {
  it('asks for the upgrade with the headers of a deployed agent and no others', async () => {
    const { server, start } = stage();
    const agent = start();
    await agent.ready();
    const { headers, url } = await server.next('open');
    expect(url).toBe('/ws/agent');
    expect(Object.keys(headers).sort()).toEqual([
      'connection',
      'host',
      'sec-websocket-key',
      'sec-websocket-version',
      'upgrade',
      'user-agent',
      'x-agent-id',
      'x-agent-public-key',
    ]);
    expect(headers).toMatchObject({
      'user-agent': 'Aegis-Agent/1.0',
      'x-agent-id': 'host-head',
      'x-agent-public-key': Buffer.from(agent.key.publicKey).toString('base64'),
    });
  });

  it('authenticates, pings, beats once and registers, in this order', async () => {
    const { server, start } = stage();
    const agent = start();
    await agent.ready();
    const order = server.seen.entries.map((seen) => (seen.ev === 'frame' ? seen.channel : seen.ev));
    expect(order).toEqual([
      'open',
      'auth',
      'ping',
      'agent.host-head.heartbeat',
      'agent.registration',
      'agent.registration.complete',
    ]);
    expect(agent.state).toBe('ready');
    expect(agent.uid).toMatch(/^[0-9a-f-]{36}$/);
    expect(agent.bootstrapToken).toBe(`boot-${agent.uid}`);
  });

  it('works the same with the portable suite', async () => {
    const { start } = stage();
    await start({ suite: nobleCrypto }).ready();
  });

  it('leaves registration out when the agent never registers', async () => {
    const { server, start } = stage();
    const agent = start({ habits: { registers: false } });
    await agent.ready();
    await agent.ping();
    expect(server.framesOf(1)).toHaveLength(2);
    expect(agent.uid).toBeNull();
  });

  it('leaves registration out when the agent holds a uid, which its headers name and its body does not', async () => {
    const { server, start } = stage();
    const agent = start({ registration: { uid: 'uid-1', bootstrapToken: 'boot-'.padEnd(20, '0') } });
    await agent.ready();
    await agent.ping();
    const { headers } = await server.next('open');
    expect(headers).toMatchObject({
      'x-agent-id': 'uid-1',
      'x-agent-uid': 'uid-1',
      'x-bootstrap-token': 'boot-000000000000000',
    });
    const [auth, heartbeat, ...more] = server.framesOf(1);
    expect(readFrame(auth ?? '').body).toMatchObject({ agent_id: 'host-head' });
    expect(readFrame(heartbeat ?? '').frame).toMatchObject({ channel: 'agent.uid-1.heartbeat' });
    expect(more).toEqual([]);
  });

  it('tells of each step', async () => {
    const { start } = stage();
    const agent = start();
    await agent.ready();
    expect(agent.events.entries.map(({ type }) => type)).toEqual(['connected', 'authenticated', 'registered', 'ready']);
  });

  it('breaks on any frame that comes before the answer', async () => {
    const { server, start } = stage();
    const heartbeatReply = { id: 'h', type: 'response', channel: 'agent.host-head.heartbeat', payload: 'e30=' };
    server.script.beforeChallenge = JSON.stringify(heartbeatReply);
    const failure = await failureOf(start().ready());
    expect(failure.code).toBe('ANSWER_BROKEN');
    expect(failure.message).toContain('got one on agent.host-head.heartbeat');
  });

  it('breaks on a challenge whose nonce is not base64', async () => {
    const { server, start } = stage();
    server.script.challenge = { nonce: 'not base64' };
    expect((await failureOf(start().ready())).code).toBe('ANSWER_BROKEN');
  });

  it('ends when authentication is refused', async () => {
    const { server, start } = stage();
    server.script.grant = { success: false, message: 'revoked' };
    const agent = start();
    const failure = await failureOf(agent.ready());
    expect(failure.code).toBe('AUTH_REFUSED');
    expect(failure.message).toContain('revoked');
    expect(agent.state).toBe('stranded');
  });

  it('ends when the connection does, before any answer', async () => {
    const { server, start } = stage();
    server.script.grant = null;
    const agent = start();
    await server.next('frame');
    server.close(1, 4003);
    const failure = await failureOf(agent.ready());
    expect(failure).toMatchObject({ code: 'LINK_CLOSED', closeCode: 4003 });
  });

  it.each(['grant', 'challenge', 'registered'] as const)(
    'waits ten seconds for the %s and no longer',
    async (answer) => {
      const { server, clock, start } = stage();
      server.script[answer] = null;
      const awaited = { grant: 'auth', challenge: 'agent.registration', registered: 'agent.registration.complete' };
      const agent = start();
      const ready = failureOf(agent.ready());
      await server.next('frame', ({ channel }) => channel === awaited[answer]);
      clock.advance(9_999);
      expect(agent.state).toBe('connecting');
      clock.advance(1);
      expect((await ready).code).toBe('ANSWER_TIMED_OUT');
    },
  );
});

describe('the dial', () => {
  it('fails with the HTTP status when the upgrade is refused', async () => {
    const { server, start } = stage();
    server.script.upgradeStatus = 503;
    expect(await failureOf(start().ready())).toMatchObject({ code: 'DIAL_REFUSED', httpStatus: 503 });
  });

  it('fails when nobody listens', async () => {
    const { server, start } = stage();
    await server.stop();
    expect(await failureOf(start().ready())).toMatchObject({ code: 'DIAL_REFUSED', httpStatus: null });
  });

  it('gives up after ten seconds without an answer, not before', async () => {
    const { server, clock, start } = stage();
    server.script.holdsUpgrades = true;
    const agent = start();
    const ready = failureOf(agent.ready());
    clock.advance(9_999);
    expect(agent.state).toBe('connecting');
    clock.advance(1);
    expect((await ready).code).toBe('DIAL_TIMED_OUT');
  });

  it('is given up when the agent is closed', async () => {
    const { server, clock, start } = stage();
    server.script.holdsUpgrades = true;
    const agent = start();
    await agent.close();
    expect(agent.state).toBe('closed');
    expect(clock.pendingTimers).toBe(0);
    expect((await failureOf(agent.ready())).code).toBe('AGENT_CLOSED');
  });

  it('throws at once for what is no URL', () => {
    expect(() => stage().start({ url: 'nonsense' })).toThrow(TypeError);
  });
});

describe('a token that is too short to be printed', () => {
  it('crashes the agent at 19 bytes of session token, and not at 20', async () => {
    const { server, start } = stage();
    server.script.grant = { session_token: 's'.repeat(19) };
    const crashing = start();
    expect((await failureOf(crashing.ready())).code).toBe('CRASHED');
    expect(crashing.state).toBe('crashed');
    await server.next('close', ({ code }) => code === 1006);
    server.script.grant = { session_token: 's'.repeat(20) };
    await start().ready();
  });

  it('crashes the agent at 19 bytes of bootstrap token, though only when it reconnects', async () => {
    const { server, clock, start } = stage();
    server.script.registered = { bootstrap_token: 'b'.repeat(19) };
    const agent = start();
    await agent.ready();
    agent.drop();
    await agent.nextEvent('closed');
    clock.advance(7_000);
    expect((await agent.nextEvent('crashed')).failure.message).toContain('bootstrap_token');
    expect(server.seen.entries.filter(({ ev }) => ev === 'open')).toHaveLength(1);
    expect(clock.pendingTimers).toBe(0);
  });

  it('does nothing at 20 bytes of bootstrap token', async () => {
    const { server, clock, start } = stage();
    server.script.registered = { bootstrap_token: 'b'.repeat(20) };
    const agent = start();
    await agent.ready();
    agent.drop();
    await agent.nextEvent('closed');
    clock.advance(7_000);
    await agent.ready();
  });
});

describe('the handoff handshake', () => {
  it('is one bare request and one bare answer', async () => {
    const { server, start } = stage();
    const agent = start({ dialect: 'handoff' });
    await agent.ready();
    const [request, ...more] = server.framesOf(1);
    expect(Object.keys(JSON.parse(request ?? ''))).toEqual([
      'agent_id',
      'public_key',
      'timestamp',
      'nonce',
      'signature',
    ]);
    expect(more).toEqual([]);
    expect(agent.uid).toBeNull();
  });

  it('ends when authentication is refused', async () => {
    const { server, start } = stage();
    server.script.handoffGrant = { success: false, backend_key: '' };
    expect((await failureOf(start({ dialect: 'handoff' }).ready())).code).toBe('AUTH_REFUSED');
  });
});

describe('the key', () => {
  it('is a new one at each start, unless a seed is given', async () => {
    const { start } = stage();
    const [first, second] = [start(), start()];
    expect(first.key.publicKey).not.toEqual(second.key.publicKey);
    expect(start({ seed: first.seed }).key.publicKey).toEqual(first.key.publicKey);
  });

  it('is refused as a seed of another length than 32 bytes', () => {
    expect(() => stage().start({ seed: new Uint8Array(31) })).toThrow(RangeError);
  });
});
