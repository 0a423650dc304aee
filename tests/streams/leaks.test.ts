import { afterEach, beforeEach, expect, test } from 'vitest';
import { seededRandom } from '../../src/agent-client/seeded-random.ts';
import { eventually } from '../support/eventually.ts';
import { openEventSource } from './event-source.ts';
import { settledBytes } from './memory.ts';
import { openMuteReader, type Transport } from './mute-reader.ts';
import { openRawSubscriber } from './raw-subscriber.ts';
import { type StreamsStage, startStreamsStage } from './stage.ts';

let stage: StreamsStage;
beforeEach(async () => {
  stage = await startStreamsStage();
});
afterEach(async () => {
  expect(stage.logged).toEqual([]);
  await stage.stop();
});

const query = 'subscription ($after: String) { anomalies(after: $after) { cursor messageId } }';
const beginning = Buffer.from('event:0').toString('base64url');
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index);

/** How a subscriber leaves. */
const departures = [
  'politely',
  'at once',
  'before the first event',
  'in the middle of a replay',
  'after events',
] as const;
type Departure = (typeof departures)[number];

/** Five subscriptions on one socket, which leave as one: only the polite ones complete each first. */
async function visitBySocket(departure: Departure): Promise<void> {
  const subscriber = await openRawSubscriber(stage.url, stage.token);
  const isReplay = departure === 'in the middle of a replay' || departure === 'after events';
  for (let id = 0; id < 5; id++) subscriber.subscribe(String(id), query, isReplay ? { after: beginning } : {});
  if (departure === 'before the first event') await eventually(() => stage.graphql.activeSubscriptions() > 0);
  if (isReplay) await eventually(() => subscriber.messages.length > (departure === 'after events' ? 100 : 0));
  if (departure !== 'politely') return subscriber.socket.terminate();
  for (let id = 0; id < 5; id++) subscriber.send({ id: String(id), type: 'complete' });
  subscriber.socket.close();
  await subscriber.closed;
}

async function visitByEventStream(departure: Departure): Promise<void> {
  const isReplay = departure === 'in the middle of a replay' || departure === 'after events';
  const variables = isReplay ? { after: beginning } : {};
  if (departure === 'at once') {
    // Gone before the answer can have begun.
    const mute = await openMuteReader('sse', stage.url, stage.token);
    mute.subscribe(query, variables);
    setImmediate(mute.cut);
    return mute.closed;
  }
  const reader = await openEventSource({ url: stage.url, token: stage.token, query, variables });
  if (departure === 'before the first event') await eventually(() => reader.lastEventId !== '');
  if (isReplay) for (let left = departure === 'after events' ? 100 : 1; left > 0; left--) await reader.next();
  reader.cut();
}

test.each([20261124])(
  'a thousand subscribers that come and go leave nothing behind, however they go (seed %i)',
  async (seed) => {
    const random = seededRandom(seed);
    const pick = () => random.pick(departures);
    await stage.store(range(0, 600));
    for (let wave = 0; wave < 10; wave++) {
      const sockets = Array.from({ length: 10 }, () => visitBySocket(pick()));
      const streams = Array.from({ length: 50 }, () => visitByEventStream(pick()));
      await Promise.all([...sockets, ...streams, stage.store(range(2_000 + 10 * wave, 2_010 + 10 * wave))]);
    }
    await stage.untilLive(0);
  },
);

test('a socket that loses an operation of which it gave the id away takes both along when it goes', async () => {
  const subscriber = await openRawSubscriber(stage.url, stage.token);
  subscriber.subscribe('1', query);
  subscriber.send({ id: '1', type: 'complete' });
  subscriber.subscribe('1', query);
  await eventually(() => stage.graphql.activeSubscriptions() > 0);
  await stage.store([1]);
  await eventually(() => subscriber.messages.length > 0);
  subscriber.socket.terminate();
  await stage.untilLive(0);
});

test.each(['websocket', 'sse'] as const satisfies Transport[])(
  'a reader that has taken 20,000 events holds no more than one that has taken none, over %s',
  async (transport) => {
    for (let number = 0; number < 20_000; number += 1_000) await stage.store(range(number, number + 1_000));
    const readers = await Promise.all(
      Array.from({ length: 4 }, () => openMuteReader(transport, stage.url, stage.token)),
    );
    const before = await settledBytes();
    for (const reader of readers) {
      reader.subscribe(query, { after: beginning });
      reader.drain();
    }
    await stage.untilLive(4);
    await eventually(() => readers.every((reader) => reader.receivedBytes > 2_000_000));
    expect(((await settledBytes()) - before) / 4).toBeLessThan(1024 * 1024);
    for (const reader of readers) reader.cut();
    await stage.untilLive(0);
  },
);
