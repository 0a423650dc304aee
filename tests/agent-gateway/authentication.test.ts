import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import type { AuthenticationRequest } from '../../src/agent-client/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { hasPostgres } from '../support/databases.ts';
import { SteppedClock } from './clocks.ts';
import { freshName, type RawAgent } from './raw-agent.ts';
import { type Stage, startStage } from './stage.ts';

const clockSkewSeconds = 300;
/** The clock stands still, so that the edges of the skew are exact. */
const clock = new SteppedClock(1_795_436_172_000);
let stage: Stage;

beforeAll(async () => {
  stage = await startStage({ clock });
});
afterEach(() => stage.endAgents());
afterAll(() => stage.stop());

/** What the gateway says to an authentication, and how it closes where it refuses. */
async function attempt(agent: RawAgent, request: AuthenticationRequest = agent.request()): Promise<unknown> {
  const answer = await agent.authenticate(request);
  if (answer.success === true) return 'ok';
  const { code: closeCode, reason } = await agent.closed;
  expect(answer).toEqual({ success: false, message: reason, code: expect.any(String) });
  return { code: answer.code, closeCode };
}

function refusal(code: string, closeCode = 4001) {
  return { code, closeCode };
}

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');

describe.each(['enveloped', 'handoff'] as const)('an authentication in the %s dialect', (dialect) => {
  it('is answered with the key of the gateway and a token of more than 20 characters', async () => {
    const agent = await stage.dial({ dialect });
    const answer = await agent.authenticate();
    expect(answer).toEqual({
      success: true,
      backend_key: expect.any(String),
      session_token: expect.stringMatching(/^\S{21,}$/),
      expires_at: clock.now() / 1_000 + 24 * 3_600,
      message: 'ok',
    });
    expect(Buffer.from(String(answer.backend_key), 'base64')).toHaveLength(32);
  });

  it.each([-clockSkewSeconds, clockSkewSeconds])('is taken with a clock that is %i s off', async (offset) => {
    const agent = await stage.dial({ dialect });
    expect(await attempt(agent, agent.request({ timestamp: agent.timestamp + offset }))).toBe('ok');
  });

  it.each([-clockSkewSeconds - 1, clockSkewSeconds + 1])('is refused with a clock that is %i s off', async (offset) => {
    const agent = await stage.dial({ dialect });
    const request = agent.request({ timestamp: agent.timestamp + offset });
    expect(await attempt(agent, request)).toEqual(refusal('AUTH_CLOCK_SKEW'));
  });

  it.each([15, 17, 0])('is refused with a nonce of %i bytes', async (length) => {
    const agent = await stage.dial({ dialect });
    const request = agent.request({ nonce: nativeCrypto.randomBytes(length) });
    expect(await attempt(agent, request)).toEqual(refusal('AUTH_MALFORMED'));
  });

  it('is refused when its nonce was used before, by whomever', async () => {
    const nonce = nativeCrypto.randomBytes(16);
    const first = await stage.dial({ dialect });
    expect(await attempt(first, first.request({ nonce }))).toBe('ok');
    const second = await stage.dial({ dialect });
    expect(await attempt(second, second.request({ nonce }))).toEqual(refusal('AUTH_NONCE_REUSED'));
  });

  it('is refused when anything that is signed is changed', async () => {
    const others: Partial<AuthenticationRequest>[] = [
      { timestamp: Math.floor(clock.now() / 1_000) - 1 },
      { nonce: base64(nativeCrypto.randomBytes(16)) },
      { signature: base64(nativeCrypto.randomBytes(64)) },
    ];
    for (const changed of others) {
      const agent = await stage.dial({ dialect });
      expect(await attempt(agent, { ...agent.request(), ...changed })).toEqual(refusal('AUTH_SIGNATURE_INVALID'));
    }
  });

  it('is refused when it claims another name or key than it signed for', async () => {
    const agentId = freshName();
    const named = await stage.dial({ dialect, headers: { 'X-Agent-ID': agentId } });
    expect(await attempt(named, { ...named.request(), agent_id: agentId })).toEqual(refusal('AUTH_SIGNATURE_INVALID'));
    const key = base64(nativeCrypto.generateSigningKey().publicKey);
    const keyed = await stage.dial({ dialect, agentId, headers: { 'X-Agent-ID': agentId } });
    expect(await attempt(keyed, { ...keyed.request(), public_key: key })).toEqual(refusal('AUTH_SIGNATURE_INVALID'));
  });

  it.each([
    ['63 bytes', base64(new Uint8Array(63))],
    ['65 bytes', base64(new Uint8Array(65))],
    ['nothing', ''],
    ['no base64', '!'.repeat(88)],
  ])('is refused with a signature of %s', async (_what, signature) => {
    const agent = await stage.dial({ dialect });
    expect(await attempt(agent, { ...agent.request(), signature })).toEqual(refusal('AUTH_MALFORMED'));
  });

  it.each([
    ['31 bytes', base64(new Uint8Array(31)), 'AUTH_MALFORMED'],
    ['33 bytes', base64(new Uint8Array(33)), 'AUTH_MALFORMED'],
    ['unpadded base64', base64(new Uint8Array(32)).replace('=', ''), 'AUTH_MALFORMED'],
    ['no point of the curve', base64(Uint8Array.of(2, ...new Uint8Array(31))), 'AUTH_SIGNATURE_INVALID'],
    ['the neutral element', base64(Uint8Array.of(1, ...new Uint8Array(31))), 'AUTH_SIGNATURE_INVALID'],
    ['a point of order 4', base64(new Uint8Array(32)), 'AUTH_SIGNATURE_INVALID'],
  ])('is refused with a key that is %s', async (_what, publicKey, code) => {
    const agent = await stage.dial({ dialect, headers: {} });
    const headed = await stage.dial({
      dialect,
      headers: { 'X-Agent-ID': agent.agentId, 'X-Agent-Public-Key': publicKey },
    });
    // With a key of small order this signature is valid for every message in a verifier that does not look.
    const signature = base64(Uint8Array.of(1, ...new Uint8Array(63)));
    const request = { ...agent.request(), public_key: publicKey, signature };
    expect(await attempt(headed, request)).toEqual(refusal(code));
  });

  it.each([
    ['another agent', (agentId: string) => ({ 'X-Agent-ID': `${agentId}.elsewhere` })],
    ['no agent', () => ({})],
    ['an agent and another key', (agentId: string) => ({ 'X-Agent-ID': agentId, 'X-Agent-Public-Key': 'AAAA' })],
    [
      'an agent and a key that is far too long',
      (agentId: string) => ({ 'X-Agent-ID': agentId, 'X-Agent-Public-Key': 'A'.repeat(1_000) }),
    ],
  ])('is refused where the headers name %s', async (_what, headersFor) => {
    const agentId = freshName();
    const agent = await stage.dial({ dialect, agentId, headers: headersFor(agentId) });
    expect(await attempt(agent)).toEqual(refusal('AUTH_IDENTITY_MISMATCH'));
  });

  it('takes headers in any case, and a name beyond ASCII as Go sends it', async () => {
    const agentId = `${freshName()}-wächter`;
    const agent = await stage.dial({
      dialect,
      agentId,
      headers: { 'x-AGENT-id': Buffer.from(agentId).toString('latin1') },
    });
    expect(await attempt(agent)).toBe('ok');
  });

  it.each([
    [255, 'ok'],
    [256, refusal('AUTH_MALFORMED')],
  ])('with a name of %i characters', async (length, outcome) => {
    const agentId = freshName().padEnd(length, 'x');
    const agent = await stage.dial({ dialect, agentId });
    expect(await attempt(agent)).toEqual(outcome);
  });

  it.each([
    { agent_id: '' },
    { agent_id: 'nul\u0000' },
    { agent_id: 7 },
    { timestamp: '1795436172' },
    { timestamp: 1.5 },
    { timestamp: -1 },
    { timestamp: 1e300 },
    { nonce: null },
    { nonce: 'not base64, 24 letters!!' },
  ])('is refused with %j in it', async (changed) => {
    const agent = await stage.dial({ dialect });
    const body = JSON.stringify({ ...agent.request(), ...changed });
    const payload = Buffer.from(body).toString('base64');
    agent.socket.send(
      dialect === 'handoff'
        ? body
        : JSON.stringify({ id: 'a', type: 'request', channel: 'auth', payload, timestamp: 1 }),
    );
    expect(await agent.readAuthAnswer()).toMatchObject({ success: false, code: 'AUTH_MALFORMED' });
    expect(await agent.closed).toMatchObject({ code: 4001 });
  });
});

describe('a first frame that is no authentication', () => {
  it.each([
    ['no JSON', '{'],
    ['an array', '[]'],
    ['deeply nested', '['.repeat(10_000)],
    ['a message', JSON.stringify({ id: 'm', type: 'event', channel: 'agent.threats', payload: '', timestamp: 1 })],
    ['an auth frame without a payload', JSON.stringify({ channel: 'auth' })],
    ['an auth frame with a payload that is no base64', JSON.stringify({ channel: 'auth', payload: '%' })],
    ['an object with a prototype', '{"__proto__":{"agent_id":"a"}}'],
    ['binary', new Uint8Array([1, 2, 3])],
  ])('is refused: %s', async (_what, content) => {
    const agent = await stage.dial();
    agent.socket.send(content);
    expect(await agent.readAuthAnswer()).toMatchObject({ success: false, code: 'AUTH_MALFORMED' });
    expect(await agent.closed).toMatchObject({ code: 4001 });
  });

  it('is refused in the handoff dialect where it has no channel', async () => {
    const agent = await stage.dial({ dialect: 'handoff' });
    agent.socket.send('{"agent_id":"a"}');
    expect(await agent.readAuthAnswer()).toMatchObject({ success: false, code: 'AUTH_MALFORMED' });
  });
});

describe('a socket that does not authenticate', () => {
  it('is closed after five seconds and not before', async () => {
    const agent = await stage.dial();
    await agent.settled();
    clock.advance(4_999);
    await agent.settled();
    expect(agent.isOpen).toBe(true);
    clock.advance(1);
    expect(await agent.closed).toMatchObject({ code: 4001, reason: 'No authentication in time' });
    expect(agent.received).toEqual([]);
  });

  it('is let in where it did and the gateway comes to read it late', async () => {
    const agent = await stage.dial();
    agent.socket.send(agent.encodeAuthentication(agent.request()));
    clock.advance(5_000);
    expect(await agent.readAuthAnswer()).toMatchObject({ success: true });
  });

  it('costs nothing lasting', async () => {
    const agents = await Promise.all(Array.from({ length: 20 }, () => stage.dial()));
    await Promise.all(agents.map((agent) => agent.settled()));
    expect(await stage.metric('aegis_links_unauthenticated')).toBe(20);
    clock.advance(5_000);
    await Promise.all(agents.map((agent) => agent.closed));
    await expect.poll(() => stage.metric('aegis_links_unauthenticated')).toBe(0);
  });
});

describe('frames behind the authentication that do not wait for its answer', () => {
  it('are taken once it is answered', async () => {
    const agent = await stage.dial();
    agent.socket.send(agent.encodeAuthentication(agent.request()));
    const ids = Array.from({ length: 200 }, () => agent.report('logs', { line: 1 }));
    expect(await agent.readAuthAnswer()).toMatchObject({ success: true });
    await stage.event(agent.agentId, ids.at(-1) ?? '');
    expect((await stage.events(agent.agentId)).map((event) => event.messageId)).toEqual(ids);
  });
});

describe('the upgrade', () => {
  async function statusOf(headers: Record<string, string>, protocols: string[] = []): Promise<number | undefined> {
    const socket = new WebSocket(stage.gateway.agentUrl, protocols, { headers });
    socket.on('error', () => {});
    return new Promise((resolve) =>
      socket.once('unexpected-response', (_request, response) => resolve(response.statusCode)),
    );
  }

  it('is refused to browsers', async () => {
    expect(await statusOf({ origin: 'http://127.0.0.1' })).toBe(403);
  });

  it('is refused to protocols that are not spoken here', async () => {
    expect(await statusOf({}, ['chat.v9'])).toBe(400);
  });
});

it('a nonce is remembered over a restart, and a revoked agent stays refused', async () => {
  const agent = await stage.dial();
  const request = agent.request();
  expect(await attempt(agent, request)).toBe('ok');
  const revoked = await stage.authenticated();
  await stage.ask('mutation ($ref: ID!) { revokeAgent(agentId: $ref) { uid } }', { ref: revoked.agentId });
  expect(await revoked.closed).toMatchObject({ code: 4003 });
  if (!hasPostgres()) return;
  // A stop waits for agents that may be about to register, and the clock stands still.
  stage.endAgents();
  await stage.gateway.restart();
  const again = await stage.dial({ agentId: agent.agentId, key: agent.key });
  expect(await attempt(again, request)).toEqual(refusal('AUTH_NONCE_REUSED'));
  const back = await stage.dial({ agentId: revoked.agentId, key: revoked.key });
  expect(await attempt(back)).toEqual(refusal('AGENT_REVOKED', 4003));
});
