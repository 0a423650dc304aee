import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { EventFilter, StoredEvent, StoredGroup, StreamGap } from '../../src/events/event.ts';
import { createWire, joinWire } from '../bus/wire.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { eventually } from '../support/eventually.ts';
import { type EventsStage, idsOf, newEvent, startEvents, stillClock, take } from './stage.ts';

const everything = { orgId: null };

describe.each(engines)('the stream of events on %s', (engine) => {
  let open: EngineDatabase;
  let stage: EventsStage;
  let agentUid: string;
  const ending: AbortController[] = [];

  beforeAll(async () => {
    open = await openEngine(engine);
  });
  afterAll(() => open.close());
  beforeEach(async () => {
    agentUid = randomUUID();
    stage = await startEvents(open.database);
  });
  afterEach(async () => {
    for (const controller of ending.splice(0)) controller.abort();
    await stage.stop(2_000);
    expect(stage.errors).toEqual([]);
  });

  function subscribe(filter: EventFilter = {}, after: string | null = null, from: EventsStage = stage) {
    const controller = new AbortController();
    ending.push(controller);
    return from.events.subscribe(everything, filter, after, controller.signal)[Symbol.asyncIterator]();
  }

  async function live(filter: EventFilter = {}, after: string | null = null, from: EventsStage = stage) {
    const before = from.subscribers;
    const stream = subscribe(filter, after, from);
    const first = stream.next();
    await eventually(() => from.subscribers > before);
    return { stream, first };
  }

  const positionOfHead = async () => {
    const [row] = await open.database.sql<{ position: number }[]>`select position from event_stream`;
    return row?.position ?? 0;
  };
  const cursorOfHead = async () => Buffer.from(`event:${await positionOfHead()}`).toString('base64url');
  const some = (count: number, given: Parameters<typeof newEvent>[0] = { agentUid }) =>
    Array.from({ length: count }, (_, index) => newEvent({ ...given, messageId: `${given.messageId ?? 'm'}${index}` }));

  it('gives what is stored from now on, and nothing from before', async () => {
    await stage.store(newEvent({ agentUid, messageId: 'before' }));
    const { stream, first } = await live({ agentUid });
    await stage.store(...some(3));
    expect((await first).value).toMatchObject({ messageId: 'm0' });
    expect(idsOf(await take(stream, 2))).toEqual(['m1', 'm2']);
  });

  it('gives what is stored from a cursor on, in pages, and then goes on live', async () => {
    const after = await cursorOfHead();
    await stage.store(...some(1_300));
    const stream = subscribe({ agentUid }, after);
    const items = await take(stream, 1_300);
    await stage.store(newEvent({ agentUid, messageId: 'live' }));
    items.push(...(await take(stream, 1)));
    expect(idsOf(items)).toEqual([...Array.from({ length: 1_300 }, (_, index) => `m${index}`), 'live']);
  });

  it('goes on at the cursor of an event that it gave, and at one that a page gave', async () => {
    const after = await cursorOfHead();
    await stage.store(...some(4));
    const [, second] = await take(subscribe({ agentUid }, after), 2);
    const cursor = second && 'position' in second ? stage.events.cursorOf(second) : '';
    expect(idsOf(await take(subscribe({ agentUid }, cursor), 2))).toEqual(['m2', 'm3']);
    const page = await stage.events.page(everything, { agentUid }, { first: 3 });
    const last = page.items.at(-1);
    expect(last && idsOf(await take(subscribe({ agentUid }, stage.events.cursorOf(last)), 1))).toEqual(['m3']);
  });

  it('gives only what was asked for, replayed as well as live', async () => {
    const filter: EventFilter = { agentUid, kinds: ['threats', 'anomalies'], minSeverity: 'high' };
    const after = await cursorOfHead();
    const mixed = (label: string) => [
      newEvent({ agentUid, kind: 'threats', severity: 'high', messageId: `${label} high` }),
      newEvent({ agentUid, kind: 'threats', severity: 'low', messageId: `${label} low` }),
      newEvent({ agentUid, kind: 'logs', severity: 'critical', messageId: `${label} log` }),
      newEvent({ agentUid, kind: 'threats', severity: 'critical', trusted: false, messageId: `${label} untrusted` }),
      newEvent({ agentUid: randomUUID(), kind: 'threats', severity: 'critical', messageId: `${label} other` }),
      newEvent({
        agentUid,
        kind: 'anomalies',
        sealed: true,
        payload: null,
        payloadText: null,
        messageId: `${label} sealed`,
      }),
    ];
    await stage.store(...mixed('stored'));
    const stream = subscribe(filter, after);
    const items = await take(stream, 2);
    await stage.store(...mixed('live'));
    items.push(...(await take(stream, 2)));
    expect(idsOf(items)).toEqual(['stored high', 'stored sealed', 'live high', 'live sealed']);
  });

  it('keeps to the organisation of its scope', async () => {
    const after = await cursorOfHead();
    const controller = new AbortController();
    ending.push(controller);
    await stage.store(
      newEvent({ agentUid, messageId: 'theirs' }),
      newEvent({ agentUid, orgId: 'acme', messageId: 'ours' }),
    );
    const stream = stage.events.subscribe({ orgId: 'acme' }, {}, after, controller.signal)[Symbol.asyncIterator]();
    expect(idsOf(await take(stream, 1))).toEqual(['ours']);
    await stage.store(newEvent({ agentUid }), newEvent({ agentUid, orgId: 'acme', messageId: 'ours too' }));
    expect(idsOf(await take(stream, 1))).toEqual(['ours too']);
  });

  it('leaves no gap and no repeat between replay and live while two gateways write', async () => {
    const other = await startEvents(await open.another());
    const after = await cursorOfHead();
    const total = 2_400;
    try {
      const writing = [stage, other].map(async (writer, index) => {
        for (let round = 0; round < total / 2 / 40; round++)
          await writer.store(...some(40, { agentUid, messageId: `${index}-${round}-` }));
      });
      // Readers on both gateways come in at any time, and each must see everything.
      const readers = Array.from({ length: 6 }, async (_, index) => {
        await eventually(async () => {
          const rows = await open.database
            .sql`select 1 from events where agent_uid = ${agentUid} limit ${1 + index * 300}`;
          return rows.length === 1 + index * 300;
        }, 20_000);
        return take(subscribe({ agentUid }, after, index % 2 === 0 ? stage : other), total);
      });
      await Promise.all(writing);
      const expected = (
        await open.database.sql<{ position: number }[]>`
        select position from events where agent_uid = ${agentUid} order by position`
      ).map((row) => row.position);
      expect(expected).toHaveLength(total);
      for (const items of await Promise.all(readers))
        expect(items.map((item) => 'position' in item && item.position)).toEqual(expected);
      expect(other.errors).toEqual([]);
    } finally {
      for (const controller of ending.splice(0)) controller.abort();
      await other.stop(2_000);
    }
  });

  it('shows what another gateway stored, and from now on means from now on there too', async () => {
    const other = await startEvents(await open.another());
    try {
      await other.store(...some(3, { agentUid, messageId: 'early-' }));
      let attempt = 0;
      // Within a poll's time, since no bus tells the one gateway of the other.
      await eventually(async () => {
        const { stream, first } = await live({ agentUid });
        const late = newEvent({ agentUid, messageId: `late-${attempt++}` });
        await other.store(late);
        const [item] = idsOf([(await first).value]);
        await stream.return?.();
        return item === late.messageId;
      });
    } finally {
      await other.stop(2_000);
    }
  });

  it('does not repeat what lies before a cursor that is ahead of what this gateway has heard of', async () => {
    const other = await startEvents(await open.another());
    try {
      await other.store(...some(5, { agentUid, messageId: 'other-' }));
      const { items } = await other.events.page(everything, { agentUid }, { last: 2 });
      const [beforeLast] = items;
      if (!beforeLast) throw new Error('there are no events');
      const { stream, first } = await live({ agentUid }, other.events.cursorOf(beforeLast));
      await stage.store(newEvent({ agentUid, messageId: 'own' }));
      expect(idsOf([(await first).value, ...(await take(stream, 1))])).toEqual(['other-4', 'own']);
    } finally {
      await other.stop(2_000);
    }
  });

  it('brings groups that overtook each other on the bus into order, without a look into the store', async () => {
    const still = await startEvents(open.database, { clock: stillClock });
    const { stream, first } = await live({ agentUid }, null, still);
    const heard: StoredGroup[] = [];
    const leave = stage.bus.subscribe('events', (group) => heard.push(group));
    for (let round = 0; round < 4; round++) await stage.store(...some(3, { agentUid, messageId: `${round}-` }));
    leave();
    for (const group of heard.reverse()) still.bus.publish('events', group);
    for (const group of heard) still.bus.publish('events', group);
    const items = [(await first).value, ...(await take(stream, 11))];
    expect(idsOf(items)).toEqual([0, 1, 2, 3].flatMap((round) => [0, 1, 2].map((index) => `${round}-${index}`)));
    await stream.return?.();
    await still.stop(1_000);
  });

  it('reads from the store what another gateway tells of, without waiting for its next poll', async () => {
    const still = await startEvents(open.database, { clock: stillClock });
    const { stream, first } = await live({ agentUid }, null, still);
    await stage.store(...some(700));
    still.bus.publish('stored', { position: await positionOfHead() });
    const items = [(await first).value, ...(await take(stream, 699))];
    expect(idsOf(items)).toEqual(Array.from({ length: 700 }, (_, index) => `m${index}`));
    await stream.return?.();
    await still.stop(1_000);
  });

  describe('with the events that other gateways tell', () => {
    let still: EventsStage;
    let reads: string[];
    let round: number;
    beforeEach(async () => {
      reads = [];
      round = 0;
      const database = await open.another((text) => /from\s+events\b/.test(text) && reads.push(text));
      still = await startEvents(database, { clock: stillClock });
    });
    afterEach(async () => {
      for (const controller of ending.splice(0)) controller.abort();
      await still.stop(1_000);
    });

    /** What the one gateway stores in as many groups, as it would tell the others. */
    async function groups(...sizes: readonly number[]): Promise<StoredGroup[]> {
      const heard: StoredGroup[] = [];
      const leave = stage.bus.subscribe('events', (group) => heard.push(group));
      for (const size of sizes) await stage.store(...some(size, { agentUid, messageId: `${round++}-` }));
      leave();
      return heard;
    }
    const tell = (...told: readonly StoredGroup[]) =>
      still.bus.publish('bodies', { text: `[${told.map((group) => group.text()).join(',')}]` });
    const hint = (group: StoredGroup | undefined) =>
      still.bus.publish('stored', { position: group?.events.at(-1)?.position ?? 0 });
    const idsOfGroups = (told: readonly StoredGroup[]) => told.flatMap(({ events }) => idsOf(events));

    it('gives them, each as it is stored, without a look into the store', async () => {
      const { stream, first } = await live({ agentUid, includeUntrusted: true }, null, still);
      const given = [
        newEvent({
          agentUid,
          kind: 'threats',
          severity: 'critical',
          payload: { text: '"\\ü🙂\u0000', list: [1, null] },
        }),
        newEvent({ agentUid, trusted: false, replyTo: randomUUID(), agentName: 'ü', orgId: 'acme' }),
        newEvent({ agentUid, sealed: true, payload: null, payloadText: null }),
        newEvent({ agentUid, payload: 'text', payloadText: ' "te\\u0078t"\n' }),
      ];
      const heard: StoredGroup[] = [];
      const leave = stage.bus.subscribe('events', (group) => heard.push(group));
      await stage.store(...given);
      leave();
      tell(...heard);
      const items = [(await first).value, ...(await take(stream, 3))];
      if (engine === 'postgres') expect(reads).toEqual([]);
      const { items: stored } = await stage.events.page(everything, { agentUid, includeUntrusted: true }, { first: 4 });
      expect(items).toEqual(stored);
    });

    it('gives them in order and once, however they come', async () => {
      const { stream, first } = await live({ agentUid }, null, still);
      const told = await groups(3, 2, 4, 1, 2);
      const [one, two, three, four, five] = told;
      if (!one || !two || !three || !four || !five) throw new Error('there are fewer groups');
      tell(three, five);
      hint(five);
      tell(one);
      hint(one);
      tell(one, four);
      tell(two);
      hint(two);
      tell(two, three);
      const items = [(await first).value, ...(await take(stream, 11))];
      expect(idsOf(items)).toEqual(idsOfGroups(told));
      if (engine === 'postgres') expect(reads).toEqual([]);
      const more = await groups(1);
      tell(...more);
      expect(idsOf(await take(stream, 1))).toEqual(idsOfGroups(more));
    });

    it('reads from the store at once what is told of without them, also while own events wait for it', async () => {
      const { stream, first } = await live({ agentUid }, null, still);
      const told = await groups(2, 3);
      const own = [newEvent({ agentUid, messageId: 'own' })];
      await still.store(...own);
      hint(told[1]);
      const items = [(await first).value, ...(await take(stream, 5))];
      expect(idsOf(items)).toEqual([...idsOfGroups(told), 'own']);
    });

    it('reads from the store what cannot be read, and says so once', async () => {
      const { stream, first } = await live({ agentUid }, null, still);
      const told = await groups(2, 2, 2);
      const [one, two, three] = told;
      if (!one || !two || !three) throw new Error('there are fewer groups');
      const text = one.text();
      const garbled = [
        'no JSON',
        '{}',
        '[null]',
        `[${text.replace('"form":1', '"form":2')}]`,
        `[${text.replace('"position":', '"position":-')}]`,
        `[${text.replace('"k":"logs"', '"k":"toString"')}]`,
        `[${text.replace('"sev":0', '"sev":6')}]`,
        `[${text.replace(/"at":\d+/, '"at":9e15')}]`,
        `[${text.replace(/"events":.*/, '"events":[]}')}]`,
        `[${text},{"form":2}]`,
      ];
      for (const each of garbled) still.bus.publish('bodies', { text: each });
      hint(one);
      tell(two);
      hint(two);
      tell(three);
      const items = [(await first).value, ...(await take(stream, 5))];
      expect(idsOf(items)).toEqual(idsOfGroups(told));
      expect(still.errors).toEqual([expect.stringContaining('events of another gateway are read from the store')]);
    });

    it('goes on where it was told of what is not there', async () => {
      still.bus.publish('stored', { position: 1e12 });
      const { stream, first } = await live({ agentUid }, null, still);
      const told = await groups(2, 2);
      still.bus.publish('stored', { position: 1e12 });
      const far = told.map((group) => group.text().replace(/"position":\d+/, '"position":900000000000'));
      still.bus.publish('bodies', { text: `[${far.join(',')}]` });
      hint(told[1]);
      const items = [(await first).value, ...(await take(stream, 3))];
      expect(idsOf(items)).toEqual(idsOfGroups(told));
      const more = await groups(2);
      tell(...more);
      hint(more[0]);
      expect(idsOf(await take(stream, 2))).toEqual(idsOfGroups(more));
    });

    it('asks for them while somebody listens, and not before or after', async () => {
      const wire = createWire();
      const [here, there] = [await joinWire(wire, 'here'), await joinWire(wire, 'there')];
      const database = await open.another((text) => /from\s+events\b/.test(text) && reads.push(text));
      const other = await startEvents(database, { clock: stillClock, bus: there });
      const teller = await startEvents(open.database, { clock: stillClock, bus: here });
      const store = async (messageId: string) => {
        await teller.store(newEvent({ agentUid, messageId }));
        const { length } = wire.texts;
        await eventually(() => wire.texts.slice(length - 1).some((text) => text.includes('stored')));
      };
      await store('before');
      const { stream, first } = await live({ agentUid }, null, other);
      await eventually(() => wire.texts.some((text) => text.includes('takesBodies')));
      await store('first');
      await store('second');
      expect(idsOf([(await first).value, ...(await take(stream, 1))])).toEqual(['first', 'second']);
      if (engine === 'postgres') expect(reads).toEqual([]);
      expect(wire.bodies).toHaveLength(2);
      await stream.return?.();
      await store('after');
      expect(wire.bodies).toHaveLength(2);
      for (const part of [other, teller]) await part.stop(1_000);
      for (const bus of [here, there]) await bus.close();
    });
  });

  it('reads from the store what a held-up reader had no room for, in order and once, and then goes on live', async () => {
    const { stream, first } = await live({ agentUid });
    const large = (number: number) =>
      newEvent({ agentUid, messageId: `m${number}`, payload: { text: 'x'.repeat(2_000) } });
    const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index);
    await stage.store(...numbers(0, 1_000).map(large));
    const items = [(await first).value, ...(await take(stream, 199))];
    await stage.store(...numbers(1_000, 1_100).map(large));
    items.push(...(await take(stream, 900)));
    await stage.store(...numbers(1_100, 1_110).map(large));
    items.push(...(await take(stream, 10)));
    expect(idsOf(items)).toEqual(numbers(0, 1_110).map((number) => `m${number}`));
    expect(stage.subscribers).toBe(1);
  });

  it('tells a reader that is too slow, once, and leaves the others alone', async () => {
    const slow = await live({ agentUid });
    const fast = await live({ agentUid });
    const page = some(500);
    await stage.store(...page);
    expect((await slow.first).value).toMatchObject({ messageId: 'm0' });
    const [example] = (await stage.events.page(everything, { agentUid }, { first: 1 })).items;
    if (!example) throw new Error('there are no events');
    const read = [(await fast.first).value, ...(await take(fast.stream, 499))];
    // What a storm would bring, without the storm: positions far ahead, straight from the bus.
    let position = example.position + 500;
    const publish = async (count: number) => {
      for (let sent = 0; sent < count; sent += 500) {
        const events = Array.from({ length: 500 }, () => ({ ...example, position: ++position - 1 }));
        stage.bus.publish('events', { events, text: () => '' });
        read.push(...(await take(fast.stream, 500)));
      }
    };
    await publish(9_500);
    expect(idsOf(await take(slow.stream, 1))).toEqual(['m1']);
    await publish(1_000);
    await expect(slow.stream.next()).rejects.toMatchObject({ code: 'SLOW_CONSUMER' });
    expect((await slow.stream.next()).done).toBe(true);
    expect(stage.subscribers).toBe(1);
    expect(read.length).toBe(11_000);
  });

  it('ends at once when its signal aborts, while waiting, between items and before the first', async () => {
    for (const moment of ['waiting', 'between', 'before'] as const) {
      const controller = new AbortController();
      const stream = stage.events.subscribe(everything, { agentUid }, null, controller.signal)[Symbol.asyncIterator]();
      if (moment === 'before') controller.abort();
      const first = stream.next();
      if (moment !== 'before') await eventually(() => stage.subscribers === 1);
      if (moment === 'between') {
        await stage.store(...some(2, { agentUid, messageId: randomUUID() }));
        expect((await first).done).toBe(false);
        controller.abort();
        expect((await stream.next()).done).toBe(true);
      } else {
        controller.abort();
        expect((await first).done).toBe(true);
      }
      expect(stage.subscribers).toBe(0);
    }
  });

  it('ends at once when it is returned, while waiting, between items and before the first', async () => {
    const unused = subscribe({ agentUid });
    await unused.return?.();
    expect((await unused.next()).done).toBe(true);

    const waiting = await live({ agentUid });
    await waiting.stream.return?.();
    expect((await waiting.first).done).toBe(true);

    const between = await live({ agentUid });
    await stage.store(...some(2));
    await between.first;
    await between.stream.return?.();
    expect((await between.stream.next()).done).toBe(true);

    const replaying = subscribe({}, Buffer.from('event:0').toString('base64url'));
    await replaying.next();
    await replaying.return?.();
    expect(stage.subscribers).toBe(0);
  });

  it('ends every subscription when the part stops', async () => {
    const streams = [await live({ agentUid }), await live()];
    await stage.stop(1_000);
    for (const { first } of streams) expect((await first).done).toBe(true);
    expect(stage.subscribers).toBe(0);
    expect((await subscribe({}, null).next()).done).toBe(true);
  });

  it('refuses a cursor that is none before anything is read', () => {
    const read = (after: string): AsyncIterable<StoredEvent | StreamGap> =>
      stage.events.subscribe(everything, {}, after, new AbortController().signal);
    expect(() => read('nonsense')).toThrow(expect.objectContaining({ code: 'CURSOR_INVALID' }));
  });
});
