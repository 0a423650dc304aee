import { randomInt } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { utf8 } from '../../src/agent-gateway/wire/bytes.ts';
import { encodeBatch } from '../../src/agent-gateway/wire/v2-message.ts';
import { recordOverheadBytes } from '../../src/agent-gateway/wire/v2-record.ts';
import { eventually } from '../support/eventually.ts';
import { SteppedClock } from './clocks.ts';
import type { RawV2Agent } from './raw-v2-agent.ts';
import { type Stage, startStage } from './stage.ts';

const clock = new SteppedClock();
let stage: Stage;
beforeAll(async () => {
  stage = await startStage({ clock, env: { KEY_ROTATION_INTERVAL: '10m', SESSION_TIMEOUT: '20m' } });
});
afterEach(() => stage.endAgents());
afterAll(() => stage.stop());

const badRecord = { code: 4009, reason: 'The record is not valid' };
const refusals = (fault: string) => stage.metric(`aegis_v2_records_refused_total{fault="${fault}"}`);

/** The agent's next record, not sent. */
function sealed(agent: RawV2Agent, id: string): Buffer {
  return Buffer.from(agent.session.sealer.seal(encodeBatch([agent.message({ id })])));
}

function withBit(frame: Buffer, bit: number): Buffer {
  const changed = Buffer.from(frame);
  const at = Math.floor(bit / 8);
  changed[at] = (changed[at] ?? 0) ^ (1 << (bit % 8));
  return changed;
}

async function storedIds(agent: RawV2Agent): Promise<string[]> {
  return (await stage.events(agent.name)).map(({ messageId }) => messageId);
}

describe('a record', () => {
  interface Attack {
    readonly name: string;
    readonly fault: string;
    readonly play: (agent: RawV2Agent) => Promise<void> | void;
    /** What is stored all the same. */
    readonly stored?: string[];
  }
  const attacks: Attack[] = [
    {
      name: 'played again',
      fault: 'out-of-sequence',
      stored: ['one'],
      play(agent) {
        const frame = sealed(agent, 'one');
        for (const each of [frame, frame]) agent.socket.send(each);
      },
    },
    {
      name: 'out of order',
      fault: 'out-of-sequence',
      play(agent) {
        const [one, two] = [sealed(agent, 'one'), sealed(agent, 'two')];
        for (const each of [two, one]) agent.socket.send(each);
      },
    },
    {
      name: 'after one that was dropped',
      fault: 'out-of-sequence',
      play(agent) {
        sealed(agent, 'dropped');
        agent.socket.send(sealed(agent, 'next'));
      },
    },
    {
      name: 'from another session of the same agent',
      fault: 'not-opened',
      async play(agent) {
        const other = await stage.connectedV2({ name: agent.name, key: agent.key });
        agent.socket.send(sealed(other, 'spliced'));
      },
    },
    {
      name: 'of the gateway itself, sent back',
      fault: 'not-opened',
      play: (agent) => agent.socket.send(agent.frames.find(({ isBinary }) => isBinary)?.data ?? ''),
    },
    { name: 'in a text frame', fault: 'not-binary', play: (agent) => agent.socket.send('{"m1":""}') },
    { name: 'that is empty', fault: 'malformed', play: (agent) => agent.socket.send(Buffer.alloc(0)) },
    {
      name: 'that is cut short',
      fault: 'not-opened',
      play: (agent) => agent.socket.send(sealed(agent, 'cut').subarray(0, -1)),
    },
    {
      name: 'under a key that is two changes ahead',
      fault: 'wrong-generation',
      play(agent) {
        agent.session.sealer.rekey();
        agent.session.sealer.rekey();
        agent.say();
      },
    },
    {
      name: 'that holds no array',
      fault: 'unsound-messages',
      play: (agent) => agent.socket.send(agent.session.sealer.seal(utf8('{}'))),
    },
    {
      name: 'that holds nothing',
      fault: 'unsound-messages',
      play: (agent) => agent.socket.send(agent.session.sealer.seal(utf8('[]'))),
    },
    {
      name: 'with an unsound message among sound ones',
      fault: 'unsound-messages',
      play: (agent) => void agent.send({ id: 'sound' }, { id: 'a\u0000b' }),
    },
    {
      name: 'with more messages than M4 allows',
      fault: 'unsound-messages',
      play: (agent) => void agent.send(...Array.from({ length: agent.grant.limits.maxBatchMessages + 1 }, () => ({}))),
    },
  ];

  it.each(attacks)(
    '$name closes the link with 4009, counted as $fault, and nothing after it is taken',
    async ({ fault, play, stored = [] }) => {
      const agent = await stage.connectedV2();
      const before = await refusals(fault);
      const refused = await stage.refused('RECORD_INVALID');
      await play(agent);
      agent.say({ id: 'too late' });
      expect(await agent.closed).toEqual(badRecord);
      expect(await refusals(fault)).toBe(before + 1);
      expect(await stage.refused('RECORD_INVALID')).toBe(refused + 1);
      await eventually(async () => (await storedIds(agent)).join() === stored.join());
    },
  );

  it('closes the link with 4009 whichever of its bits is flipped', async () => {
    const agents = await Promise.all(Array.from({ length: 50 }, () => stage.connectedV2()));
    const bits: number[] = [];
    for (const agent of agents) {
      const frame = sealed(agent, 'flipped');
      const bit = randomInt(8 * frame.length);
      bits.push(bit);
      agent.socket.send(withBit(frame, bit));
    }
    expect(await Promise.all(agents.map(({ closed }) => closed)), `bits ${bits}`).toEqual(agents.map(() => badRecord));
  });

  it('may be as long as M4 allows, and not a byte longer: that closes with 1009', async () => {
    const agent = await stage.connectedV2();
    const { maxRecordBytes } = agent.grant.limits;
    const emptyBytes = encodeBatch([agent.message({ id: 'long 0', payload: '' })]).length + recordOverheadBytes;
    const send = (id: string, frameBytes: number) => {
      const message = agent.message({ id, payload: 'x'.repeat(frameBytes - emptyBytes) });
      agent.socket.send(agent.session.sealer.seal(encodeBatch([message])));
    };
    send('long 0', maxRecordBytes);
    await agent.untilAcknowledged(['long 0']);
    send('long 1', maxRecordBytes + 1);
    expect(await agent.closed).toMatchObject({ code: 1009 });
  });

  it('may hold as many messages as M4 allows', async () => {
    const agent = await stage.connectedV2();
    const ids = agent.send(...Array.from({ length: agent.grant.limits.maxBatchMessages }, () => ({})));
    await agent.untilAcknowledged(ids);
    expect(await storedIds(agent)).toEqual(ids);
  });
});

describe('keys', () => {
  const generations = (agent: RawV2Agent) =>
    agent.frames.filter(({ isBinary }) => isBinary).map(({ data }) => data.readUInt32BE(1));

  it('of the gateway change when they are KEY_ROTATION_INTERVAL old, where that is less than an hour', async () => {
    const agent = await stage.connectedV2();
    await agent.untilAcknowledged([agent.say()]);
    for (let minute = 0; minute < 9; minute++) {
      clock.advance(60_000);
      await agent.untilAcknowledged([agent.say()]);
    }
    clock.advance(59_999);
    await agent.untilAcknowledged([agent.say()]);
    expect(new Set(generations(agent))).toEqual(new Set([0]));
    clock.advance(1);
    await agent.untilAcknowledged([agent.say()]);
    await agent.untilAcknowledged([agent.say()]);
    expect(generations(agent).slice(-3)).toEqual([0, 1, 1]);
  });

  it('of an agent change when it likes, at most one step at a time', async () => {
    const agent = await stage.connectedV2();
    for (let generation = 0; generation < 5; generation++) {
      await agent.untilAcknowledged([agent.say(), agent.say()]);
      agent.session.sealer.rekey();
    }
    expect(agent.isOpen).toBe(true);
  });
});

describe('a silent link', () => {
  it('is pinged after 30 s and closed with 4008 after 65, unless a pong comes', async () => {
    const [silent, alive] = [await stage.connectedV2({ socket: { autoPong: false } }), await stage.connectedV2()];
    const pings: number[] = [];
    const startedMs = clock.now();
    silent.socket.on('ping', () => pings.push(clock.now() - startedMs));
    for (let passedMs = 0; passedMs < 65_000; passedMs += 5_000) {
      clock.advance(5_000);
      await alive.untilAcknowledged([alive.say()]);
    }
    expect(pings[0]).toBeGreaterThanOrEqual(30_000);
    expect(pings[0]).toBeLessThanOrEqual(35_000);
    expect(silent.isOpen).toBe(true);
    clock.advance(5_000);
    expect(await silent.closed).toMatchObject({ code: 4008 });
    expect(alive.isOpen).toBe(true);
  });
});

describe('a session', () => {
  it('ends when M4 said that it would: 4010', async () => {
    const agent = await stage.connectedV2();
    const { expiresAtMs, serverTimeMs } = agent.grant;
    expect(expiresAtMs - serverTimeMs).toBe(20 * 60_000);
    while (clock.now() + 30_000 < expiresAtMs) {
      clock.advance(30_000);
      await agent.untilAcknowledged([agent.say()]);
    }
    clock.advance(35_000);
    expect(await agent.closed).toEqual({ code: 4010, reason: 'The session has ended' });
  });
});
