import { randomInt } from 'node:crypto';
import { request } from 'node:http';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { decodeBase64Url, decodeUtf8, encodeBase64Url, utf8 } from '../../src/agent-gateway/wire/bytes.ts';
import { handshakeTimeoutMs } from '../../src/agent-gateway/wire/v2-limits.ts';
import { eventually } from '../support/eventually.ts';
import { SteppedClock } from './clocks.ts';
import { freshName } from './raw-agent.ts';
import type { RawV2Agent, V2DialOptions } from './raw-v2-agent.ts';
import { type Stage, startStage } from './stage.ts';
import { wideOpen } from './wide-open.ts';

const clock = new SteppedClock();
let stage: Stage;
let closed: Stage;
beforeAll(async () => {
  stage = await startStage({ clock, admission: wideOpen, env: { AGENT_V1: 'on', DEPLOYMENT_ID: 'acme' } });
  closed = await startStage({ clock, env: { AGENT_V1: 'off', AGENT_ENROLLMENT: 'closed' } });
});
afterEach(() => {
  stage.endAgents();
  closed.endAgents();
});
afterAll(async () => {
  await stage.stop();
  await closed.stop();
});

const here = { initiator: { deploymentId: 'acme' } };
const dial = (options: Partial<V2DialOptions> = {}) => stage.dialV2({ ...here, ...options });
const connected = (options: Partial<V2DialOptions> = {}) => stage.connectedV2({ ...here, ...options });

/** The HTTP status that an upgrade is answered with. */
function upgradeStatus(gatewayUrl: string, headers: Readonly<Record<string, string>>): Promise<number> {
  return new Promise((resolve, reject) => {
    const upgrade = request(`${gatewayUrl}/ws/agent`, {
      headers: {
        ...{ connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13' },
        ...{ 'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==', ...headers },
      },
    });
    upgrade.on('upgrade', (response, socket) => {
      socket.destroy();
      resolve(response.statusCode ?? 0);
    });
    upgrade.on('response', (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    upgrade.on('error', reject);
    upgrade.end();
  });
}

const protocol = (name: string) => ({ 'sec-websocket-protocol': name });

describe('the upgrade', () => {
  it('chooses v2 by aegis.v2, to the letter, and refuses any other subprotocol', async () => {
    expect(await upgradeStatus(stage.gateway.url, protocol('aegis.v2'))).toBe(101);
    for (const name of ['aegis.v3', 'AEGIS.V2', 'aegis.v2, aegis.v3', 'aegis.v1', 'graphql-transport-ws'])
      expect([name, await upgradeStatus(stage.gateway.url, protocol(name))]).toEqual([name, 400]);
    expect((await dial()).socket.protocol).toBe('aegis.v2');
  });

  it('refuses any Origin', async () => {
    expect(await upgradeStatus(stage.gateway.url, { ...protocol('aegis.v2'), origin: 'https://evil.example' })).toBe(
      403,
    );
  });

  it('takes v2 where v1 is off', async () => {
    expect(await upgradeStatus(closed.gateway.url, protocol('aegis.v2'))).toBe(101);
    expect(await upgradeStatus(closed.gateway.url, {})).toBe(403);
  });
});

/** One message of the handshake with a bit of it flipped. */
function flipped(text: string, bit: number): Buffer {
  const bytes = Buffer.from(text);
  const at = Math.floor(bit / 8) % bytes.length;
  bytes[at] = (bytes[at] ?? 0) ^ (1 << (bit % 8));
  return bytes;
}

/** M1 with something else in its body. */
function changedM1(m1: string, changes: object): string {
  const body: unknown = JSON.parse(decodeUtf8(decodeBase64Url(JSON.parse(m1).m1) ?? new Uint8Array()) ?? '');
  return JSON.stringify({ m1: encodeBase64Url(utf8(JSON.stringify({ ...Object(body), ...changes }))) });
}

type Attempt = (agent: RawV2Agent) => Promise<void> | void;

/** Sends M1, and what is made of M3. */
const withM3 =
  (make: (m3: string) => string | Buffer) =>
  async (agent: RawV2Agent): Promise<void> => {
    agent.socket.send(agent.initiator.m1);
    agent.socket.send(make(await agent.answerToM2()), { binary: false });
  };

const faults: readonly (readonly [string, Attempt, Partial<V2DialOptions>?])[] = [
  ['says nothing', () => {}],
  ['sends no JSON', (agent) => agent.socket.send('hello')],
  ['sends an empty frame', (agent) => agent.socket.send('')],
  ['sends what is not UTF-8', (agent) => agent.socket.send(Buffer.from([0xff, 0xfe]), { binary: false })],
  ['sends M1 in a binary frame', (agent) => agent.socket.send(Buffer.from(agent.initiator.m1))],
  ['sends M1 with much behind it', (agent) => agent.socket.send(`${agent.initiator.m1}${' '.repeat(17_000)}`)],
  ['sends far too much', (agent) => agent.socket.send('x'.repeat(300_000))],
  ['speaks another version', (agent) => agent.socket.send(changedM1(agent.initiator.m1, { v: 3 }))],
  ['sends a point of low order', (agent) => agent.socket.send(changedM1(agent.initiator.m1, { e: 'A'.repeat(43) }))],
  ['sends base64 with an alias', (agent) => agent.socket.send(`{"m1":"${JSON.parse(agent.initiator.m1).m1}="}`)],
  [
    'binds to a TLS connection that is none',
    (agent) => agent.socket.send(changedM1(agent.initiator.m1, { cb: 'tls-exporter' })),
  ],
  ['stops after M1', (agent) => agent.socket.send(agent.initiator.m1)],
  [
    'sends M1 twice',
    (agent) => {
      agent.socket.send(agent.initiator.m1);
      agent.socket.send(agent.initiator.m1);
    },
  ],
  [
    'sends M3 in a binary frame',
    async (agent) => {
      agent.socket.send(agent.initiator.m1);
      agent.socket.send(Buffer.from(await agent.answerToM2()));
    },
  ],
  ['sends an M3 that is cut', withM3((m3) => `${m3.slice(0, -10)}"}`)],
  ['sends an M3 with a bit flipped in its tag', withM3((m3) => flipped(m3, 8 * (m3.length - 6)))],
  ['has no sound name', withM3((m3) => m3), { name: 'a\u0000b' }],
  [
    'sends records before it was let in',
    async (agent) => {
      agent.socket.send(agent.initiator.m1);
      await agent.answerToM2();
      agent.say();
    },
  ],
];

/** How a link ended, and when on the gateway's clock, counted from the call. */
function closingOf(agent: RawV2Agent): Promise<{ code: number; reason: string; afterMs: number }> {
  const startedMs = clock.now();
  return agent.closed.then((end) => ({ ...end, afterMs: clock.now() - startedMs }));
}

const failed = { code: 4001, reason: 'The handshake failed', afterMs: handshakeTimeoutMs };

/** Lets the time for a handshake pass, and shows that nobody is closed before. Gives how these agents end. */
async function endsOf(agents: readonly RawV2Agent[], closings: readonly Promise<unknown>[]): Promise<unknown[]> {
  clock.advance(handshakeTimeoutMs - 1);
  // Long enough for whatever was on its way.
  await connected();
  expect(agents.filter(({ isOpen }) => !isOpen)).toEqual([]);
  clock.advance(1);
  return Promise.all(closings);
}

const failures = () => stage.metric('aegis_authentications_total{result="HANDSHAKE_FAILED",protocol="v2"}');

describe('a handshake that fails', () => {
  it('is closed with one code, reason and time whatever was wrong, as is one that never began', async () => {
    const before = await failures();
    const agents = await Promise.all(faults.map(([, , options]) => dial(options)));
    const closings = agents.map(closingOf);
    await Promise.all(agents.map((agent, index) => faults[index]?.[1](agent)));
    const unfinished = ['says nothing', 'stops after M1', 'sends far too much'];
    await eventually(async () => (await failures()) === before + faults.length - unfinished.length);
    const ends = await endsOf(agents, closings);
    expect(faults.map(([name], index) => [name, ends[index]])).toEqual(faults.map(([name]) => [name, failed]));
    // Nothing but M2 was ever said.
    for (const agent of agents) expect(agent.frames.length).toBeLessThanOrEqual(1);
    expect(await failures()).toBe(before + faults.length);
  });

  it('looks the same whichever bit of M1 or M3 was flipped', async () => {
    const before = await failures();
    const bits = Array.from({ length: 60 }, () => randomInt(8 * 500));
    const agents = await Promise.all([...bits, ...bits].map(() => dial()));
    const closings = agents.map(closingOf);
    await Promise.all(
      agents.map((agent, index) => {
        const bit = bits[index % bits.length] ?? 0;
        return index < bits.length
          ? agent.socket.send(flipped(agent.initiator.m1, bit), { binary: false })
          : withM3((m3) => flipped(m3, bit))(agent);
      }),
    );
    await eventually(async () => (await failures()) >= before + bits.length);
    expect(await endsOf(agents, closings), `bits ${bits}`).toEqual(agents.map(() => failed));
    // Where M1 was sound all the same, the agent does not take the answer.
    for (const agent of agents.slice(0, bits.length))
      for (const { data } of agent.frames) expect(agent.initiator.takeM2(data.toString()).ok).toBe(false);
  });

  it('looks the same where the agent is known and refused: revoked, with a key of v1, or not enrolled', async () => {
    const revoked = await connected();
    await stage.ask('mutation ($ref: ID!) { revokeAgent(agentId: $ref) { uid } }', { ref: revoked.name });
    expect(await revoked.closed).toMatchObject({ code: 4003 });
    const spent = await stage.registered();
    const agents = [
      await dial({ name: revoked.name, key: revoked.key }),
      await dial({ key: spent.key }),
      await dial({ name: freshName() }),
    ];
    const closings = agents.map(closingOf);
    const [first, second, malformed] = agents;
    for (const agent of [first, second]) if (agent) await withM3((m3) => m3)(agent);
    malformed?.socket.send('{}');
    const refusals = (code: string) => stage.metric(`aegis_authentications_total{result="${code}",protocol="v2"}`);
    await eventually(async () => (await refusals('AGENT_REVOKED')) + (await refusals('KEY_USED_IN_V1')) === 2);
    expect(await endsOf(agents, closings)).toEqual([failed, failed, failed]);

    const stranger = await closed.dialV2();
    const closing = closingOf(stranger);
    await withM3((m3) => m3)(stranger);
    await eventually(() => closed.metric('aegis_authentications_total{result="REGISTRATION_CLOSED",protocol="v2"}'));
    clock.advance(handshakeTimeoutMs);
    expect(await closing).toEqual(failed);
  });

  it('leaves nothing behind: what comes later is dropped, and a second try on the same socket is none', async () => {
    const agent = await dial();
    agent.socket.send('{}');
    agent.socket.send(agent.initiator.m1);
    await connected();
    expect(agent.frames).toEqual([]);
    const closing = closingOf(agent);
    clock.advance(handshakeTimeoutMs);
    expect(await closing).toMatchObject({ code: 4001 });
    await eventually(async () => (await stage.metric('aegis_links_unauthenticated')) === 0);
  });
});

describe('a handshake', () => {
  it('of another deployment goes no further than M2, which its agent does not take', async () => {
    const agent = await stage.dialV2({ initiator: { deploymentId: 'other' } });
    agent.socket.send(agent.initiator.m1);
    await expect(agent.answerToM2()).rejects.toThrow('not-opened');
  });

  it('with a gateway that is not pinned goes no further either: the agent does not name itself', async () => {
    const agent = await dial({ pins: ['0'.repeat(64)] });
    agent.socket.send(agent.initiator.m1);
    await expect(agent.answerToM2()).rejects.toThrow('unknown-gateway-key');
  });

  it('cannot be finished with the M3 of another one, whoever recorded it', async () => {
    const agent = await dial();
    agent.socket.send(agent.initiator.m1);
    const recorded = await agent.answerToM2();
    const thief = await dial();
    const closing = closingOf(thief);
    thief.socket.send(thief.initiator.m1);
    await eventually(() => thief.frames.length === 1);
    thief.socket.send(recorded);
    agent.socket.send(recorded);
    await agent.granted();
    clock.advance(handshakeTimeoutMs);
    expect(await closing).toMatchObject({ code: 4001 });
    expect(agent.isOpen).toBe(true);
  });

  it('may take its time, and the link that comes of it has no end at five seconds', async () => {
    const slow = await dial();
    clock.advance(handshakeTimeoutMs - 1);
    slow.socket.send(slow.initiator.m1);
    slow.socket.send(await slow.answerToM2());
    await slow.granted();
    clock.advance(60_000 - handshakeTimeoutMs);
    await connected();
    expect(slow.isOpen).toBe(true);
  });
});
