import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import {
  AnomaliesDocument,
  type ConsumerClient,
  type ConsumerClientOptions,
  createConsumerClient,
  EventStreamDocument,
  PresenceDocument,
  TypedDocumentString,
} from '../../src/consumer-client/client.ts';
import { AegisError } from '../../src/errors.ts';
import type { Events } from '../../src/events/events.ts';
import { startTcpWire } from '../faults/tcp-wire.ts';
import { startConsumerStage } from '../schema/consumer-stage.ts';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { type CuttingProxy, startCuttingProxy } from './cutting-proxy.ts';
import { type StreamsStage, startStreamsStage } from './stage.ts';

let stage: StreamsStage;
let proxy: CuttingProxy;
const clients: ConsumerClient[] = [];
let before: (events: Events) => Events = (events) => events;

beforeEach(async () => {
  before = (events) => events;
  stage = await startStreamsStage({
    before: (events) => ({ ...events, subscribe: (...given) => before(events).subscribe(...given) }),
  });
  proxy = await startCuttingProxy(stage.url);
});
afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()));
  await stage.untilLive(0);
  await proxy.close();
  await stage.stop();
});

function open(options: Partial<ConsumerClientOptions> = {}): ConsumerClient {
  const hasty = { firstDelayMs: 20, maxDelayMs: 50 };
  const client = createConsumerClient({ url: proxy.url, token: stage.token, resume: hasty, ...options });
  clients.push(client);
  return client;
}

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index);
const names = (from: number, to: number) => range(from, to).map((number) => `m${number}`);

type Anomalies = ReturnType<typeof subscribe>;
const subscribe = (client: ConsumerClient) => client.subscribe(AnomaliesDocument);

async function take(stream: Anomalies, count: number): Promise<string[]> {
  const taken: string[] = [];
  while (taken.length < count) {
    const { done, value } = await stream.next();
    if (done) throw new Error('the stream has ended');
    taken.push(value.anomalies.messageId);
  }
  return taken;
}

describe('a subscription of the typed client', () => {
  test('comes back after each lost connection, without a gap or a repeat', async () => {
    const stream = subscribe(open());
    const first = take(stream, 3);
    await stage.untilLive(1);
    await stage.store(range(0, 3));
    expect(await first).toEqual(names(0, 3));
    for (let round = 1; round <= 3; round++) {
      proxy.cut();
      await stage.store(range(round * 3, round * 3 + 3));
      expect(await take(stream, 3)).toEqual(names(round * 3, round * 3 + 3));
    }
    expect(proxy.dialled).toBeGreaterThan(3);
  });

  test('misses nothing though the connection was lost before its first event', async () => {
    const stream = subscribe(open());
    const first = take(stream, 2);
    await stage.untilLive(1);
    proxy.cut();
    await stage.store([0, 1]);
    expect(await first).toEqual(names(0, 2));
  });

  test('comes back where its connection leads nowhere any more', async () => {
    const port = Number(new URL(stage.url).port);
    const wire = await startTcpWire({ targets: () => [port], whenNoneAnswers: 'refuse' });
    onTestFinished(() => wire.close());
    const stream = subscribe(open({ url: `http://127.0.0.1:${wire.port}`, silenceMs: 1_000 }));
    const first = take(stream, 1);
    await stage.untilLive(1);
    await stage.store([0]);
    expect(await first).toEqual(['m0']);
    wire.strand('dialling');
    await stage.store([1]);
    expect(await take(stream, 1)).toEqual(['m1']);
  });

  test('starts live, and from a cursor where it is given one', async () => {
    await stage.store(range(0, 3));
    const [cursor] = await stage.cursors();
    const client = open();
    const given = client.subscribe(AnomaliesDocument, { after: cursor?.cursor ?? null });
    expect(await take(given, 2)).toEqual(names(1, 3));
    const live = take(subscribe(client), 1);
    await stage.untilLive(2);
    await stage.store([3]);
    expect(await live).toEqual(['m3']);
  });

  test('comes back after 1013, behind what it was given', async () => {
    let overruns = 2;
    before = (events) => ({
      ...events,
      async *subscribe(...given) {
        let left = overruns-- > 0 ? 2 : Number.POSITIVE_INFINITY;
        for await (const event of events.subscribe(...given)) {
          yield event;
          if (--left === 0) throw new AegisError('SLOW_CONSUMER');
        }
      },
    });
    const stream = subscribe(open());
    const taken = take(stream, 6);
    await stage.untilLive(1);
    await stage.store(range(0, 6));
    expect(await taken).toEqual(names(0, 6));
    expect(overruns).toBeLessThan(0);
  });

  test('goes on behind a gap that was told', async () => {
    await stage.store(range(0, 3));
    const [, second] = await stage.cursors();
    const to = second?.cursor ?? '';
    let isGapTold = false;
    before = (events) => ({
      ...events,
      async *subscribe(...given) {
        if (!isGapTold) yield { from: null, to, reason: 'past their retention' };
        isGapTold = true;
        const cursor = given[2];
        if (cursor !== to) throw new AegisError('UNAVAILABLE');
        yield* events.subscribe(...given);
      },
    });
    const seen: string[] = [];
    for await (const { events } of open().subscribe(EventStreamDocument, { after: 'ZXZlbnQ6MA' })) {
      seen.push(events.__typename === 'StreamGap' ? 'gap' : events.messageId);
      if (seen.length === 2) break;
    }
    expect(seen).toEqual(['gap', 'm2']);
  });

  test('asks for the token anew, and gives up where it is refused twice', async () => {
    let token = stage.token;
    const asked: string[] = [];
    const client = open({
      token: () => {
        asked.push(token);
        return token;
      },
    });
    const stream = subscribe(client);
    const first = take(stream, 1);
    await stage.untilLive(1);
    await stage.store([0]);
    await first;
    // Run out when the connection is lost, renewed when it is asked for again.
    token = 'run-out';
    const askedBefore = asked.length;
    const second = take(stream, 1);
    proxy.cut();
    await eventually(() => asked.length > askedBefore);
    token = stage.token;
    await stage.store([1]);
    expect(await second).toEqual(['m1']);
    token = 'run-out';
    proxy.cut();
    await expect(stream.next()).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    expect(await stream.next()).toMatchObject({ done: true });
  });

  test('waits a random part of a time that doubles, up to its limit', async () => {
    const drawn: number[] = [];
    const random = () => {
      drawn.push(performance.now());
      return 1;
    };
    const stream = subscribe(open({ resume: { firstDelayMs: 50, maxDelayMs: 200, random } }));
    const first = take(stream, 1);
    await stage.untilLive(1);
    proxy.refuse(true);
    proxy.cut();
    await eventually(() => drawn.length >= 5);
    proxy.refuse(false);
    await stage.store([0]);
    expect(await first).toEqual(['m0']);
    const waits = drawn.slice(1, 5).map((at, index) => at - (drawn[index] ?? 0));
    for (const [index, leastMs] of [50, 100, 200, 200].entries()) {
      expect(waits[index]).toBeGreaterThanOrEqual(leastMs - 1);
      expect(waits[index]).toBeLessThan(leastMs + 2_000);
    }
  });

  test('throws what the connection was lost by once its patience is at an end', async () => {
    const stream = subscribe(open({ resume: { firstDelayMs: 20, maxDelayMs: 50, patienceMs: 300 } }));
    const failure = stream.next();
    failure.catch(() => {});
    await stage.untilLive(1);
    const dialled = proxy.dialled;
    proxy.refuse(true);
    proxy.cut();
    await expect(failure).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(proxy.dialled - dialled).toBeGreaterThan(2);
    expect(await stream.next()).toMatchObject({ done: true });
  });

  test('ends at once where it is returned, or its client closed, while it waits', async () => {
    const patient = { firstDelayMs: 600_000, maxDelayMs: 600_000, patienceMs: 6_000_000, random: () => 1 };
    for (const leave of ['return', 'close'] as const) {
      const client = open({ resume: patient });
      const stream = subscribe(client);
      const waiting = stream.next();
      await stage.untilLive(1);
      proxy.cut();
      await stage.untilLive(0);
      if (leave === 'return') await stream.return?.();
      else await client.close();
      expect(await waiting).toMatchObject({ done: true });
    }
  });

  test('throws a lost connection where it is told not to resume', async () => {
    const waiting = subscribe(open({ resume: false })).next();
    waiting.catch(() => {});
    await stage.untilLive(1);
    proxy.cut();
    await expect(waiting).rejects.toMatchObject({ code: 'UNAVAILABLE', closeCode: 1006 });
  });

  test('throws it too where there is no place to go on from', async () => {
    const client = open();
    const presence = client.subscribe(PresenceDocument).next();
    presence.catch(() => {});
    await eventually(() => stage.graphql.activeSubscriptions() === 1);
    proxy.cut();
    await expect(presence).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    const blind = new TypedDocumentString<{ anomalies: { messageId: string } }, { after?: string }>(
      'subscription ($after: String) { anomalies(after: $after) { messageId } }',
    );
    const stream = client.subscribe(blind);
    const first = stream.next();
    await stage.untilLive(1);
    await stage.store([0]);
    expect((await first).value?.anomalies.messageId).toBe('m0');
    proxy.cut();
    await expect(stream.next()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });

  test('throws what will not pass by itself', async () => {
    const unknown = open().subscribe(AnomaliesDocument, { agentId: 'nobody' });
    await expect(unknown.next()).rejects.toMatchObject({ code: 'AGENT_NOT_FOUND' });
    const expired = open();
    before = (events) => ({
      ...events,
      async *subscribe() {
        yield { from: null, to: 'ZXZlbnQ6MQ', reason: 'past their retention' };
      },
    });
    await expect(subscribe(expired).next()).rejects.toMatchObject({ code: 'CURSOR_EXPIRED' });
  });
});

test.skipIf(!hasPostgres())('a subscription of the typed client outlives a restart of the gateway', async () => {
  const restarting = await startConsumerStage();
  const { gateway } = restarting;
  const client = createConsumerClient({ url: gateway.url, token: gateway.token, resume: { maxDelayMs: 100 } });
  const stream = client.subscribe(AnomaliesDocument);
  const seen: unknown[] = [];
  const reading = (async () => {
    for await (const { anomalies } of stream) seen.push(anomalies.payload);
  })();
  await restarting.untilStreaming(1);
  for (const name of ['before', 'after']) {
    const agent = await restarting.connect(name);
    for (let number = 0; number < 3; number++) await agent.sendEvent('anomalies', { name, number });
    if (name === 'before') {
      await agent.close();
      await gateway.restart();
    }
  }
  await eventually(() => seen.length === 6);
  expect(seen).toEqual(['before', 'after'].flatMap((name) => range(0, 3).map((number) => ({ name, number }))));
  await client.close();
  await reading;
  await restarting.stop();
});
