import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { encodeSecureMessage, startV1Agent } from '../../src/agent-client/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { eventKinds } from '../../src/agent-gateway/wire/channels.ts';
import { eventually } from '../support/eventually.ts';
import { freshName, type RawAgent } from './raw-agent.ts';
import { type Stage, startStage } from './stage.ts';

let stage: Stage;
let agent: RawAgent;
/** Meanwhile it sends an event now and then; nothing that the other does may hurt it. */
let bystander: RawAgent;

beforeAll(async () => {
  stage = await startStage();
  agent = await stage.registered();
  bystander = await stage.registered();
});
afterEach(async () => {
  expect(agent.isOpen).toBe(true);
  expect(await stage.event(bystander.agentId, bystander.report('status', {}))).toMatchObject({ trusted: true });
});
afterAll(() => stage.stop());

const stored = (messageId: string) => stage.event(agent.agentId, messageId);

/** Does something, and tells by how much a count of refused frames has grown when all of it has been looked at. */
async function refusedBy(code: string, action: () => void): Promise<number> {
  const before = await stage.refused(code);
  action();
  await stored(agent.report('logs', { after: code }));
  return (await stage.refused(code)) - before;
}

const frame = (fields: object) => JSON.stringify({ ...agent.message('logs', {}), ...fields });
const rawPayload = (text: string | Buffer) => Buffer.from(text).toString('base64');

describe('an event', () => {
  it.each(eventKinds)('of kind %s is stored and shown', async (kind) => {
    const event = await stored(agent.report(kind, { kind, type: 't' }));
    expect(event).toMatchObject({
      kind: kind.toUpperCase(),
      channel: `agent.${agent.agentId}.${kind}`,
      payload: { kind, type: 't' },
      trusted: true,
      sealed: false,
    });
  });

  it.each([
    ['HIGH', 'HIGH'],
    ['warn', 'MEDIUM'],
    ['Critical', 'CRITICAL'],
    [9.5, 'CRITICAL'],
    ['whatever', 'UNKNOWN'],
    [null, 'UNKNOWN'],
    [{ level: 1 }, 'UNKNOWN'],
  ])('with the severity %j is %s', async (severity, expected) => {
    expect(await stored(agent.report('anomalies', { severity }))).toMatchObject({ severity: expected });
  });

  it.each<[(now: number) => number | string, string]>([
    [(now) => now - 60, 'seconds'],
    [(now) => (now - 60) * 1_000, 'milliseconds'],
    [(now) => new Date((now - 60) * 1_000).toISOString(), 'RFC 3339'],
    [(now) => new Date((now - 60) * 1_000).toISOString().replace('.000Z', '.123456789Z'), 'RFC 3339 of Go'],
    [(now) => new Date((now + 3_540) * 1_000).toISOString().replace('.000Z', '+01:00'), 'RFC 3339 with a zone'],
    [(now) => new Date((now - 60) * 1_000).toISOString().replace('.000Z', ''), 'RFC 3339 without one'],
    [(now) => String(now - 60), 'seconds in digits'],
  ])('tells its own time, case %#: %s', async (timeAt) => {
    const now = agent.timestamp;
    const { occurredAt } = await stored(agent.report('threats', { timestamp: timeAt(now) }));
    expect(Math.floor(Date.parse(occurredAt) / 1_000)).toBe(now - 60);
  });

  it.each([1e300, -5, 'yesterday', '2026-13-77T99:99:99Z', { at: 1 }, 4_102_444_800])(
    'whose time is %j has the time of its frame',
    async (timestamp) => {
      const message = agent.message('threats', { timestamp });
      agent.socket.send(encodeSecureMessage(message));
      expect(Date.parse((await stored(message.id)).occurredAt)).toBe(message.timestamp * 1_000);
    },
  );

  it('with no field at all has nulls for them', async () => {
    const id = agent.report('threats', {});
    await stored(id);
    const data = await stage.ask(
      `query ($r: ID!) { events(agentId: $r, kinds: [THREATS], last: 1) { nodes {
        ... on ThreatEvent { type description source response severity indicators { value } } } } }`,
      { r: agent.agentId },
    );
    const nothing = {
      type: null,
      description: null,
      source: null,
      response: null,
      severity: 'UNKNOWN',
      indicators: [],
    };
    expect(data).toEqual({ events: { nodes: [nothing] } });
  });

  it.each([
    ['text that is no JSON', rawPayload('segfault at 0x0'), 'segfault at 0x0'],
    ['nothing', '', ''],
    ['what is no base64', 'not base64 at all', 'not base64 at all'],
    ['bytes that are no UTF-8', rawPayload(Buffer.from([0xff, 0xfe])), '//4='],
    ['a scalar', rawPayload('7'), 7],
    ['null', rawPayload('null'), null],
    ['an array', rawPayload('[1,"a"]'), [1, 'a']],
    ['text that holds NUL', rawPayload('a\u0000b'), 'a\u0000b'],
    ['NUL as an escape', rawPayload('{"a":"\\u0000"}'), { a: '\u0000' }],
    ['half a surrogate pair as an escape', rawPayload('{"a":"\\ud800"}'), { a: '\ud800' }],
    ['a byte order mark', rawPayload('\ufeff{"a":1}'), { a: 1 }],
    ['numbers of any size', rawPayload('{"big":1e400,"small":-0}'), { big: null, small: 0 }],
  ])('whose payload is %s is kept', async (_what, payload, expected) => {
    expect(await stored(agent.report('logs', {}, { payload }))).toMatchObject({ payload: expected });
  });

  it('with __proto__ in it is kept as it is and pollutes nothing', async () => {
    const payload = rawPayload('{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}');
    const id = agent.report('anomalies', {}, { payload });
    expect(JSON.stringify((await stored(id)).payload)).toContain('polluted');
    expect('polluted' in {}).toBe(false);
  });

  it.each(['[', '{"a":'])('nested 32 deep with %s is kept, 33 deep is refused', async (open) => {
    const nested = (depth: number) =>
      rawPayload(open.repeat(depth) + (open === '[' ? '' : '0') + (open === '[' ? ']' : '}').repeat(depth));
    await stored(agent.report('logs', {}, { payload: nested(32) }));
    expect(await refusedBy('FRAME_PAYLOAD_TOO_DEEP', () => agent.report('logs', {}, { payload: nested(33) }))).toBe(1);
    expect(await refusedBy('FRAME_PAYLOAD_TOO_DEEP', () => agent.report('logs', {}, { payload: nested(20_000) }))).toBe(
      1,
    );
  });
});

describe('the id of a message', () => {
  it('that comes again with the same body is stored once', async () => {
    const message = agent.message('anomalies', { n: 1 });
    const send = () => agent.socket.send(encodeSecureMessage(message));
    expect(await refusedBy('FRAME_REPLAYED', () => [send(), send(), send()])).toBe(2);
    expect((await stage.events(agent.agentId)).filter((event) => event.messageId === message.id)).toHaveLength(1);
  });

  it('that comes again with another body, or on another channel, is refused', async () => {
    const message = agent.message('anomalies', { n: 1 });
    agent.socket.send(encodeSecureMessage(message));
    await stored(message.id);
    const others = [agent.message('anomalies', { n: 2 }, { id: message.id }), { ...message, channel: 'agent.threats' }];
    const resend = () => {
      for (const other of others) agent.socket.send(encodeSecureMessage(other));
    };
    expect(await refusedBy('FRAME_ID_REUSED', resend)).toBe(2);
    expect(await stored(message.id)).toMatchObject({ payload: { n: 1 }, kind: 'ANOMALIES' });
  });

  it('of two heartbeats of one second is the same, and costs nothing', async () => {
    const id = `heartbeat_${agent.timestamp}`;
    const beat = () => agent.report('heartbeat', {}, { id, type: 'heartbeat' });
    expect(await refusedBy('FRAME_REPLAYED', () => [beat(), beat()])).toBe(1);
  });

  it('has up to 255 characters, and not 256, none, control characters or another type', async () => {
    await stored(agent.report('logs', {}, { id: freshName().padEnd(255, 'i') }));
    for (const id of ['i'.repeat(256), '', 'nul\u0000', 'half \ud800', 7, null])
      expect(await refusedBy('FRAME_ID_INVALID', () => agent.socket.send(frame({ id })))).toBe(1);
  });
});

describe('a channel', () => {
  it.each([
    ['the short form', () => 'agent.anomalies'],
    ['the name', () => `agent.${agent.agentId}.anomalies`],
    ['the uid', () => `agent.${agent.uid}.anomalies`],
    ['the uid in capitals', () => `agent.${agent.uid?.toUpperCase()}.anomalies`],
  ])('is taken by %s', async (_form, channel) => {
    expect(await stored(agent.report('anomalies', {}, { channel: channel() }))).toMatchObject({ kind: 'ANOMALIES' });
  });

  it('of another agent is refused, by name or uid, and so is that of nobody', async () => {
    const refs = [bystander.agentId, bystander.uid, 'nobody', agent.agentId.slice(0, -1), `${agent.agentId}.x`];
    for (const ref of refs) {
      const report = () => agent.report('threats', {}, { channel: `agent.${ref}.threats` });
      expect(await refusedBy('FRAME_CHANNEL_FOREIGN', report)).toBe(1);
    }
  });

  it.each([
    'agent.',
    'agent..threats',
    'agent.threat',
    'backend.policies',
    'auth',
    '',
    'agent.x.investigations',
    'AGENT.threats',
  ])('is unknown: %j', async (channel) => {
    expect(await refusedBy('FRAME_CHANNEL_UNKNOWN', () => agent.report('logs', {}, { channel }))).toBe(1);
  });

  it('that an operator has switched off is refused until it is switched on again', async () => {
    const set = (active: boolean) =>
      stage.ask(
        'mutation ($r: ID!, $on: Boolean!) { setAgentChannel(agentId: $r, channel: "agent.tests", active: $on) { uid } }',
        {
          r: agent.agentId,
          on: active,
        },
      );
    await set(false);
    await eventually(async () => (await refusedBy('FRAME_CHANNEL_CLOSED', () => agent.report('tests', {}))) === 1);
    await set(true);
    await eventually(async () => (await refusedBy('FRAME_CHANNEL_CLOSED', () => agent.report('tests', {}))) === 0);
  });
});

describe('a frame that is wrong', () => {
  const wrong: [string, object][] = [
    ['FRAME_MALFORMED', { type: 'shout' }],
    ['FRAME_MALFORMED', { type: 7 }],
    ['FRAME_MALFORMED', { channel: null }],
    ['FRAME_MALFORMED', { payload: { a: 1 } }],
    ['FRAME_MALFORMED', { timestamp: '1' }],
    ['FRAME_MALFORMED', { timestamp: 0.5 }],
    ['FRAME_MALFORMED', { nonce: [] }],
    ['FRAME_MALFORMED', { signature: 7 }],
    ['FRAME_SIGNATURE_INVALID', { signature: '' }],
    ['FRAME_SIGNATURE_INVALID', { signature: rawPayload(Buffer.alloc(63)) }],
    ['FRAME_SIGNATURE_INVALID', { signature: rawPayload(Buffer.alloc(64)) }],
    ['FRAME_SIGNATURE_INVALID', { nonce: 'another' }],
  ];
  it.each(wrong)('is refused as %s, and the link stays open: %j', async (code, fields) => {
    expect(await refusedBy(code, () => agent.socket.send(frame(fields)))).toBe(1);
  });

  it.each([
    ['FRAME_MALFORMED', '{'],
    ['FRAME_MALFORMED', '[]'],
    ['FRAME_MALFORMED', '"text"'],
    ['FRAME_MALFORMED', '['.repeat(200_000)],
    ['FRAME_MALFORMED', '{"__proto__":{"id":"a"}}'],
    ['FRAME_NOT_TEXT', Buffer.from('{}')],
  ])('is refused as %s, whatever it is (%#)', async (code, content) => {
    expect(await refusedBy(code, () => agent.socket.send(content))).toBe(1);
  });

  it('is refused when it is older or newer than CLOCK_SKEW', async () => {
    for (const offset of [-310, 310]) {
      const report = () => agent.report('logs', {}, { timestamp: agent.timestamp + offset });
      expect(await refusedBy('FRAME_CLOCK_SKEW', report)).toBe(1);
    }
    for (const offset of [-290, 290]) await stored(agent.report('logs', {}, { timestamp: agent.timestamp + offset }));
  });

  it('is refused when it is signed with another identity', async () => {
    const message = bystander.message('logs', {});
    expect(await refusedBy('FRAME_SIGNATURE_INVALID', () => agent.socket.send(encodeSecureMessage(message)))).toBe(1);
  });

  it('may end with a new line', async () => {
    const message = agent.message('logs', {});
    agent.socket.send(`${encodeSecureMessage(message)}\n`);
    await stored(message.id);
  });
});

describe('a handoff agent', () => {
  it('that calls itself by another name is heard, unless that name is another agent', async () => {
    const start = (name: string) =>
      startV1Agent({ url: stage.gateway.agentUrl, agentId: name, dialect: 'handoff', suite: nativeCrypto });
    const handoff = start(freshName());
    try {
      await handoff.ready();
      const { message } = await handoff.sendEvent('anomalies', { a: 1 }, { channel: 'agent.a1.anomalies' });
      expect(await stage.event(handoff.agentId, message.id)).toMatchObject({ sealed: true, payload: null });
      const before = await stage.refused('FRAME_CHANNEL_FOREIGN');
      await handoff.sendEvent('anomalies', { a: 1 }, { channel: `agent.${bystander.agentId}.anomalies` });
      await eventually(async () => (await stage.refused('FRAME_CHANNEL_FOREIGN')) === before + 1);
      const forged = { ...message, id: 'other' };
      await handoff.sendRaw(encodeSecureMessage(forged));
      await eventually(async () => (await stage.refused('FRAME_SIGNATURE_INVALID')) > 0);
    } finally {
      await handoff.close();
    }
  });
});
