import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import type { Events } from '../../src/events/events.ts';
import { SteppedClock } from '../agent-gateway/clocks.ts';
import { eventually } from '../support/eventually.ts';
import { type EventSourceOptions, type EventSourceReader, openEventSource } from './event-source.ts';
import { type StreamsStage, startStreamsStage } from './stage.ts';

let stage: StreamsStage;
let number = 0;
const readers: EventSourceReader[] = [];

beforeAll(async () => {
  stage = await startStreamsStage();
});
afterEach(async () => {
  for (const reader of readers.splice(0)) reader.cut();
  await stage.untilLive(0);
});
afterAll(() => stage.stop());

async function open(query: string, options: Partial<EventSourceOptions> = {}, at: StreamsStage = stage) {
  const reader = await openEventSource({ url: at.url, token: at.token, query, ...options });
  readers.push(reader);
  return reader;
}

async function openLive(query: string, options: Partial<EventSourceOptions> = {}) {
  const reader = await open(query, options);
  await stage.untilLive(readers.length);
  return reader;
}

/** Stores so many more events; resolves with what each has as its cursor. */
async function storeMore(count: number) {
  const known = (await stage.cursors()).length;
  await stage.store(Array.from({ length: count }, () => number++));
  return (await stage.cursors()).slice(known);
}

const ids = (stored: readonly { readonly messageId: string }[]) => stored.map(({ messageId }) => messageId);

async function take(reader: EventSourceReader, count: number) {
  const taken: { cursor: string; messageId: string }[] = [];
  while (taken.length < count) {
    const { value } = await reader.next();
    const { data } = z
      .object({ data: z.record(z.string(), z.object({ messageId: z.string() })) })
      .parse(JSON.parse(value.data));
    const [item] = Object.values(data);
    taken.push({ cursor: value.id, messageId: item?.messageId ?? '' });
  }
  return taken;
}

const anomalies = 'subscription ($after: String) { anomalies(after: $after) { messageId } }';

describe('every event over Server-Sent Events has its cursor as its id', () => {
  test.each([
    ['in a typed stream', anomalies],
    ['in the stream of all kinds', 'subscription { events { ... on Event { messageId } } }'],
    ['under another name, with no cursor selected', 'subscription { renamed: anomalies { messageId } }'],
  ])('%s', async (_name, query) => {
    const reader = await openLive(query);
    const stored = await storeMore(3);
    expect(await take(reader, 3)).toEqual(stored);
  });

  test('and what has no cursors has no ids', async () => {
    const reader = await open('subscription { presence { connected } }');
    await eventually(() => stage.graphql.activeSubscriptions() === 1 && reader.comments > 0);
    expect(reader.lastEventId).toBe('');
  });
});

describe('a reader that comes back with Last-Event-ID', () => {
  test.each(['GET', 'POST'] as const)('goes on behind that event and then live, by %s', async (method) => {
    const stored = await storeMore(5);
    const reader = await open(anomalies, { method, lastEventId: stored[1]?.cursor ?? '' });
    expect(await take(reader, 3)).toEqual(stored.slice(2));
    const [live] = await storeMore(1);
    expect(await take(reader, 1)).toEqual([live]);
  });

  test('goes on from there whatever `after` it repeats', async () => {
    const stored = await storeMore(4);
    const variables = { after: stored[0]?.cursor };
    const first = await open(anomalies, { variables });
    expect(await take(first, 2)).toEqual(stored.slice(1, 3));
    const second = await open(anomalies, { variables, lastEventId: stored[2]?.cursor ?? '' });
    expect(await take(second, 1)).toEqual(stored.slice(3));
  });

  test('starts live with an empty one', async () => {
    await storeMore(2);
    const reader = await openLive(anomalies, { lastEventId: '' });
    const [live] = await storeMore(1);
    expect(await take(reader, 1)).toEqual([live]);
  });

  test('misses nothing though it was cut off before its first event', async () => {
    const first = await openLive('subscription { anomalies { messageId } }');
    await eventually(() => first.lastEventId !== '');
    first.cut();
    const stored = await storeMore(2);
    const second = await open('subscription { anomalies { messageId } }', { lastEventId: first.lastEventId });
    expect(await take(second, 2)).toEqual(stored);
  });

  test('misses nothing though there was no event at all when it was cut off', async () => {
    const empty = await startStreamsStage();
    const first = await open('subscription { anomalies { messageId } }', {}, empty);
    await eventually(() => first.lastEventId !== '');
    first.cut();
    await empty.store([1, 2]);
    const second = await open('subscription { anomalies { messageId } }', { lastEventId: first.lastEventId }, empty);
    expect(ids(await take(second, 2))).toEqual(['m1', 'm2']);
    second.cut();
    await empty.stop();
  });

  test('is told where the id is none of ours', async () => {
    const reader = await open(anomalies, { lastEventId: 'nonsense' });
    expect(await reader.json()).toMatchObject({ errors: [{ extensions: { code: 'CURSOR_INVALID' } }] });
    expect((await reader.next()).value).toMatchObject({ type: 'complete' });
  });

  test('meets no obstacle where the operation has no use for it', async () => {
    const reader = await open('{ __typename }', { lastEventId: 'nonsense' });
    expect(await reader.json()).toEqual({ data: { __typename: 'Query' } });
  });
});

describe('`eventCursor`', () => {
  test('stands before what comes next, and not before what came last', async () => {
    await storeMore(2);
    const asked = await open('{ eventCursor }');
    const { data } = z.object({ data: z.object({ eventCursor: z.string() }) }).parse(await asked.json());
    const stored = await storeMore(2);
    const reader = await open(anomalies, { variables: { after: data.eventCursor } });
    readers.splice(readers.indexOf(asked), 1);
    expect(await take(reader, 2)).toEqual(stored);
  });
});

describe('where retention has taken events', () => {
  /** As the events part will behave: first the gap, then what is left. */
  function withGap(events: Events, to: () => string): Events {
    return {
      ...events,
      async *subscribe(...given) {
        yield { from: null, to: to(), reason: 'past their retention' };
        yield* events.subscribe(given[0], given[1], to(), given[3]);
      },
    };
  }

  test('the gap has its end as its id, from where a reader goes on; typed streams end', async () => {
    let to = '';
    const gapped = await startStreamsStage({ before: (events) => withGap(events, () => to) });
    await gapped.store([1, 2, 3]);
    const stored = await gapped.cursors();
    to = stored[1]?.cursor ?? '';
    const all = await open(
      'subscription { events(after: "") { __typename ... on Event { messageId } } }'.replace(
        '""',
        `"${stored[0]?.cursor}"`,
      ),
      {},
      gapped,
    );
    expect((await all.next()).value).toMatchObject({ id: to, data: '{"data":{"events":{"__typename":"StreamGap"}}}' });
    expect(ids(await take(all, 1))).toEqual(['m3']);
    const typed = await open(anomalies, { lastEventId: stored[0]?.cursor ?? '' }, gapped);
    expect(await typed.json()).toMatchObject({ errors: [{ extensions: { code: 'CURSOR_EXPIRED' } }] });
    expect((await typed.next()).value).toMatchObject({ type: 'complete' });
    await eventually(() => typed.over === 'ended');
    all.cut();
    await gapped.stop();
  });
});

describe('a stream that says nothing', () => {
  test('is kept open by a comment every 15 seconds at the latest', async () => {
    const clock = new SteppedClock();
    const idle = await startStreamsStage({ clock });
    const reader = await open(anomalies, {}, idle);
    await eventually(() => reader.lastEventId !== '');
    const before = reader.comments;
    for (let quarter = 1; quarter <= 4; quarter++) {
      const seen = reader.comments;
      for (let second = 1; second <= 15; second++) {
        clock.advance(1_000);
        await new Promise((resolve) => setImmediate(resolve));
      }
      await eventually(() => reader.comments > seen);
    }
    expect(reader.comments - before).toBeLessThan(8);
    expect(reader.over).toBeNull();
    reader.cut();
    await idle.untilLive(0);
    await idle.stop();
  });
});

test('a subscription of someone who takes no stream is refused, and not kept', async () => {
  const refused = await open(anomalies, { accept: 'application/json' });
  expect(refused.status).toBe(406);
  await eventually(() => stage.graphql.activeSubscriptions() === 0);
});
