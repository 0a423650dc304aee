import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { defaultAdmissionLimits } from '../../src/agent-gateway/admission-gate.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { answersIn, openRaw, type RawConnection } from '../http/raw-connection.ts';
import { eventually } from '../support/eventually.ts';
import { SteppedClock } from './clocks.ts';
import { freshName, RawAgent } from './raw-agent.ts';
import { type Stage, startStage } from './stage.ts';

const admission = {
  ...defaultAdmissionLimits,
  ...{
    startCredit: 4,
    maxCredit: 8,
    creditPerSecond: 0.01,
    placesOfStranger: 3,
    places: 6,
    strangerPlaces: 4,
    maxHeldOfAddress: 3,
  },
};
let stage: Stage;
let opened: RawConnection[] = [];
/** Each test has addresses of its own: what one did to its own is not forgotten. */
let network = 0;

beforeAll(async () => {
  stage = await startStage({ admission, random: () => 0.5, env: { TRUST_PROXY: '127.0.0.1' } });
});
beforeEach(() => {
  network++;
});
afterEach(async () => {
  for (const { socket } of opened) socket.destroy();
  opened = [];
  stage.endAgents();
  await eventually(async () => (await stage.metric('aegis_links_unauthenticated')) === 0);
  await eventually(async () => (await stage.metric('aegis_upgrades_held')) === 0);
});
afterAll(() => stage.stop());

const address = (host: number) => `10.0.${network}.${host}`;

/** An upgrade from an address, as bytes: what comes back is read as text. */
function upgrade(from: string, headers: readonly string[] = []): RawConnection {
  const lines = [
    'GET /ws/agent HTTP/1.1',
    'Host: gateway',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    `X-Forwarded-For: ${from}`,
    ...headers,
  ];
  const connection = openRaw(stage.gateway.url, `${lines.join('\r\n')}\r\n\r\n`);
  opened.push(connection);
  return connection;
}

const isUpgraded = ({ received }: RawConnection) => received.startsWith('HTTP/1.1 101 ');

/** Sockets that are upgraded and say nothing. */
async function silent(from: string, count: number): Promise<RawConnection[]> {
  const connections = Array.from({ length: count }, () => upgrade(from));
  await eventually(() => connections.every(isUpgraded));
  return connections;
}

async function held(from: string): Promise<RawConnection> {
  const before = await stage.metric('aegis_upgrades_held');
  const connection = upgrade(from);
  await eventually(async () => (await stage.metric('aegis_upgrades_held')) === before + 1);
  return connection;
}

/** An agent that comes from an address, as it first did or as it comes back. */
function agentFrom(from: string, key = nativeCrypto.generateSigningKey(), agentId = freshName()): Promise<RawAgent> {
  const headers = {
    'X-Forwarded-For': from,
    'X-Agent-ID': agentId,
    'X-Agent-Public-Key': Buffer.from(key.publicKey).toString('base64'),
  };
  return stage.authenticated({ agentId, key, headers });
}

async function fail(from: string): Promise<void> {
  const agent = await stage.dial({ headers: { 'X-Forwarded-For': from, 'X-Agent-ID': 'x' } });
  agent.socket.send('no authentication');
  await agent.closed;
}

describe('an upgrade of v1 that finds no place', () => {
  it('is neither answered nor refused until there is one', async () => {
    const [first] = await silent(address(1), 3);
    const waiting = await held(address(1));
    expect(waiting.received).toBe('');
    first?.socket.destroy();
    await eventually(() => isUpgraded(waiting));
  });

  it('is forgotten when its agent goes away', async () => {
    await silent(address(1), 3);
    for (const leave of ['end', 'destroy', 'resetAndDestroy'] as const) {
      const waiting = await held(address(1));
      waiting.socket[leave]();
      await eventually(async () => (await stage.metric('aegis_upgrades_held')) === 0);
    }
  });

  it('holds up nobody at another address', async () => {
    await silent(address(1), 3);
    await held(address(1));
    await agentFrom(address(2));
  });

  it('is refused only where more wait than are held', async () => {
    await silent(address(1), 3);
    const waiting = [await held(address(1)), await held(address(1)), await held(address(1))];
    const [refusal] = answersIn(await upgrade(address(1)).closed);
    expect(refusal).toMatchObject({ status: 503 });
    expect(JSON.parse(refusal?.body ?? '')).toMatchObject({ code: 'ADMISSION_BUSY' });
    expect(Number(refusal?.headers.get('retry-after'))).toBeGreaterThan(0);
    expect(waiting.map(({ received }) => received)).toEqual(['', '', '']);
  });

  it('is counted, and how long it waited', async () => {
    const [first] = await silent(address(1), 3);
    const [admitted, refused] = [
      await stage.metric('aegis_upgrade_hold_seconds_count'),
      await stage.metric('aegis_upgrades_refused_total{reason="ADMISSION_BUSY"}'),
    ];
    const waiting = [await held(address(1)), await held(address(1)), await held(address(1))];
    await upgrade(address(1)).closed;
    first?.socket.destroy();
    await eventually(() => waiting.some(isUpgraded));
    expect(await stage.metric('aegis_upgrade_hold_seconds_count')).toBe(admitted + 1);
    expect(await stage.metric('aegis_upgrades_refused_total{reason="ADMISSION_BUSY"}')).toBe(refused + 1);
  });
});

describe('an upgrade of v2 that finds no place', () => {
  const v2 = (from: string) => upgrade(from, ['Sec-WebSocket-Protocol: aegis.v2']);

  it('is refused with 503 and a time to come back', async () => {
    const inside = [v2(address(1)), v2(address(1)), v2(address(1))];
    await eventually(() => inside.every(isUpgraded));
    const [refusal] = answersIn(await v2(address(1)).closed);
    expect(refusal).toMatchObject({ status: 503 });
    expect(JSON.parse(refusal?.body ?? '')).toMatchObject({ code: 'ADMISSION_BUSY' });
    // Two seconds, and half of as much again.
    expect(refusal?.headers.get('retry-after')).toBe('3');
    inside[0]?.socket.destroy();
    await eventually(async () => {
      const again = v2(address(1));
      await eventually(() => again.received !== '');
      return isUpgraded(again);
    });
  });

  it('does not use up the places of v1 behind the same address', async () => {
    const inside = [v2(address(1)), v2(address(1)), v2(address(1))];
    await eventually(() => inside.every(isUpgraded));
    await agentFrom(address(1));
  });
});

describe('whoever fails to authenticate again and again', () => {
  it('is made to wait, and others are not', async () => {
    for (let guess = 0; guess < 4; guess++) await fail(address(1));
    await held(address(1));
    expect(await stage.metric('aegis_addresses_exhausted')).toBeGreaterThan(0);
    await agentFrom(address(2));
  });

  it('does not keep an agent behind the same address from coming back', async () => {
    const agent = await agentFrom(address(1));
    for (let guess = 0; guess < 5; guess++) await fail(address(1));
    await held(address(1));
    agent.terminate();
    await agentFrom(address(1), agent.key, agent.agentId);
  });
});

it('agents that come with a storm have the ten seconds that they wait for their answer, and no more', async () => {
  const clock = new SteppedClock();
  const own = await startStage({
    clock,
    admission: { ...admission, places: 2, strangerPlaces: 2, placesOfStranger: 2 },
  });
  try {
    // Somebody authenticates from there, so it is no flood.
    await own.authenticated();
    const [late, silent] = [await own.dial(), await own.dial()];
    const waiting = own.dial();
    await eventually(async () => (await own.metric('aegis_upgrades_held')) === 1);
    clock.advance(5_000);
    await late.settled();
    late.socket.send(late.encodeAuthentication(late.request()));
    expect(await late.readAuthAnswer()).toMatchObject({ success: true });
    const held = await waiting;
    clock.advance(5_000);
    expect(await silent.closed).toMatchObject({ code: 4001 });
    await held.settled();
    expect(held.isOpen).toBe(true);
    clock.advance(5_000);
    expect(await held.closed).toMatchObject({ code: 4001 });
  } finally {
    own.endAgents();
    await own.stop();
  }
});

it('agents that wait when the gateway stops are let in, and told like all others', async () => {
  const own = await startStage({ admission: { ...admission, places: 1, strangerPlaces: 1, placesOfStranger: 1 } });
  try {
    const first = await own.dial();
    const name = freshName();
    const key = nativeCrypto.generateSigningKey();
    const second = RawAgent.authenticated({ url: own.gateway.agentUrl, agentId: name, key });
    await eventually(async () => (await own.metric('aegis_upgrades_held')) === 1);
    const stopped = own.gateway.restart();
    expect(await (await second).closed).toMatchObject({ code: 1012 });
    await stopped;
    first.terminate();
  } finally {
    await own.stop();
  }
});
