import { afterEach, describe, expect, test } from 'vitest';
import { AegisError } from '../../src/errors.ts';
import type { Events } from '../../src/events/events.ts';
import { SteppedClock } from '../agent-gateway/clocks.ts';
import { eventually } from '../support/eventually.ts';
import { openEventSource } from './event-source.ts';
import { settledBytes } from './memory.ts';
import { type MuteReader, openMuteReader, type Transport } from './mute-reader.ts';
import { openRawSubscriber } from './raw-subscriber.ts';
import { type StreamsStage, startStreamsStage } from './stage.ts';

let stage: StreamsStage | null = null;
const mute: MuteReader[] = [];

afterEach(async () => {
  for (const reader of mute.splice(0)) reader.cut();
  await stage?.untilLive(0);
  expect(stage?.logged).toEqual([]);
  await stage?.stop();
  stage = null;
});

async function start(options: Parameters<typeof startStreamsStage>[0] = {}): Promise<StreamsStage> {
  stage = await startStreamsStage(options);
  return stage;
}

async function openMute(transport: Transport, at: StreamsStage): Promise<MuteReader> {
  const reader = await openMuteReader(transport, at.url, at.token);
  mute.push(reader);
  return reader;
}

const query = 'subscription ($after: String) { anomalies(after: $after) { cursor messageId payload } }';
const beginning = Buffer.from('event:0').toString('base64url');
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index);

/** More than the kernel's buffers of a connection hold, stored in groups. */
async function flood(at: StreamsStage, count = 1_500, payloadCharacters = 8_000): Promise<void> {
  const stored = (await at.cursors()).length;
  for (let number = stored; number < stored + count; number += 100)
    await at.store(range(number, number + 100), () => ({ text: 'x'.repeat(payloadCharacters) }));
}

/** Lets the event loop go round, so that what a beat sets off is under way. */
async function someTurns(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

describe.each(['websocket', 'sse'] as const)('a reader that never reads, over %s', (transport) => {
  test('is given up after two beats, and hurts nobody', async () => {
    const clock = new SteppedClock();
    const at = await start({ clock });
    const stuck = await openMute(transport, at);
    stuck.subscribe(query);
    const healthy = await openRawSubscriber(at.url, at.token);
    healthy.subscribe('healthy', query);
    await at.untilLive(2);
    await flood(at);
    await eventually(() => healthy.messages.length === 1_500, 30_000);
    expect(at.graphql.activeSubscriptions()).toBe(2);
    clock.advance(12_000);
    await someTurns();
    expect(at.graphql.activeSubscriptions()).toBe(2);
    clock.advance(12_000);
    await at.untilLive(1);
    clock.advance(5_000);
    stuck.drain();
    await stuck.closed;
    await at.store([1_500]);
    await eventually(() => healthy.messages.length === 1_501);
    healthy.socket.terminate();
  });

  test.each([
    ['of what comes live', false],
    ['of what is replayed', true],
  ])('costs under 2 MiB %s', async (_name, isReplay) => {
    const readers = 10;
    const at = await start({ clock: new SteppedClock() });
    if (isReplay) await flood(at, 10_000, 1_000);
    const stuck = [];
    while (stuck.length < readers) stuck.push(await openMute(transport, at));
    const before = await settledBytes();
    for (const reader of stuck) reader.subscribe(query, isReplay ? { after: beginning } : {});
    await eventually(() => at.graphql.activeSubscriptions() === readers);
    if (!isReplay) {
      await at.untilLive(readers);
      await flood(at);
    }
    const cost = ((await settledBytes()) - before) / readers;
    expect(at.graphql.activeSubscriptions()).toBe(readers);
    expect(cost).toBeLessThan(2 * 1024 * 1024);
  });
});

describe('a WebSocket that is given up', () => {
  test('closes with 1013 and SLOW_CONSUMER behind what it was sent, without an error', async () => {
    const clock = new SteppedClock();
    const at = await start({ clock });
    const subscriber = await openRawSubscriber(at.url, at.token);
    subscriber.subscribe('1', query);
    await at.untilLive(1);
    subscriber.socket.pause();
    await flood(at);
    for (let beat = 0; beat < 2; beat++) {
      clock.advance(12_000);
      await someTurns();
    }
    await at.untilLive(0);
    subscriber.socket.resume();
    expect(await subscriber.closed).toEqual({ code: 1013, reason: 'SLOW_CONSUMER' });
    expect(subscriber.messages.every(({ type }) => type === 'next')).toBe(true);
    const seen = subscriber.messages.map(({ payload }) => JSON.stringify(payload).match(/"messageId":"m(\d+)"/)?.[1]);
    expect(seen.map(Number)).toEqual(range(0, seen.length));
    expect(seen.length).toBeLessThan(1_500);
  });

  test.each([
    ['pings of the protocol', `{"type":"ping","payload":{"a":"${'x'.repeat(200_000)}"}}`, 'text', 2],
    ['pings of WebSocket', 'x'.repeat(125), 'ping', 3_000],
  ] as const)('is not read from while it does not take its answers: %s', async (_name, text, opcode, atOnce) => {
    const clock = new SteppedClock();
    const at = await start({ clock });
    const reader = await openMute('websocket', at);
    let batches = 0;
    let isTaken = true;
    while (isTaken && batches < 250) {
      const taken = reader.frames(atOnce, text, opcode).then(() => true);
      isTaken = await Promise.race([taken, new Promise<false>((resolve) => setTimeout(resolve, 2_000, false))]);
      batches++;
    }
    // 400 kB each: what the kernel's buffers hold, and then no more.
    expect(batches).toBeLessThan(60);
    clock.advance(12_000);
    clock.advance(12_000);
    clock.advance(5_000);
    await reader.closed;
  });
});

describe('a reader whose stream has run ahead of it', () => {
  const overrun = (events: Events): Events => ({
    ...events,
    async *subscribe(...given) {
      let left = 2;
      for await (const event of events.subscribe(...given)) {
        yield event;
        if (--left === 0) throw new AegisError('SLOW_CONSUMER');
      }
    },
  });

  test('is closed with 1013 at once, over WebSocket', async () => {
    const at = await start({ before: overrun });
    const subscriber = await openRawSubscriber(at.url, at.token);
    subscriber.subscribe('1', query);
    await at.untilLive(1);
    await at.store([0, 1, 2]);
    expect(await subscriber.closed).toEqual({ code: 1013, reason: 'SLOW_CONSUMER' });
    expect(subscriber.messages.map(({ type }) => type)).toEqual(['next', 'next']);
  });

  test('is told and cut, over Server-Sent Events', async () => {
    const at = await start({ before: overrun });
    const reader = await openEventSource({ url: at.url, token: at.token, query });
    await at.untilLive(1);
    await at.store([0, 1, 2]);
    const data: unknown[] = [];
    for await (const event of reader) data.push({ type: event.type, ...JSON.parse(event.data) });
    expect(data).toMatchObject([
      { type: 'next', data: { anomalies: { messageId: 'm0' } } },
      { type: 'next', data: { anomalies: { messageId: 'm1' } } },
      { type: 'next', errors: [{ extensions: { code: 'SLOW_CONSUMER' } }] },
    ]);
    expect(reader.over).toBe('cut');
    expect(reader.lastEventId).toBe((await at.cursors())[1]?.cursor);
  });
});
