import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { NewEvent } from '../../src/events/event.ts';
import type { IngestOutcome } from '../../src/events/ingest.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { type EventsStage, newEvent, startEvents } from './stage.ts';

const everything = { orgId: null };

describe.each(engines)('storing events on %s', (engine) => {
  let open: EngineDatabase;
  let stage: EventsStage;
  let agentUid: string;

  beforeAll(async () => {
    open = await openEngine(engine);
  });
  afterAll(() => open.close());
  beforeEach(async () => {
    agentUid = randomUUID();
    stage = await startEvents(open.database);
  });
  afterEach(() => stage.stop(2_000));

  const sql = () => open.database.sql;
  const stored = async () =>
    (await stage.events.page(everything, { agentUid, includeUntrusted: true }, { first: 500 })).items;
  const head = async () => (await sql()<{ position: number }[]>`select position from event_stream`)[0]?.position ?? 0;

  it('stores an event as it was given, and shows it on the bus once it is there', async () => {
    const shown: unknown[] = [];
    stage.bus.subscribe('events', ({ events }) => shown.push(...events));
    const payload = { text: 'tab\t, NUL \\u0000, é, 😀', list: [1, null, { a: [] }] };
    const event = newEvent({ agentUid, kind: 'threats', severity: 'high', replyTo: randomUUID(), payload });
    const before = await head();
    expect(await stage.store(event)).toEqual(['stored']);
    const [found] = await stored();
    const { key, bodyHash, payloadText, ...told } = event;
    expect(found).toEqual({ ...told, position: before + 1, receivedAt: expect.any(Date) });
    expect(shown).toEqual([found]);
    expect(stage.storedKinds).toEqual(['threats']);
    expect(await head()).toBe(before + 1);
  });

  it('keeps a sealed event without a body', async () => {
    await stage.store(newEvent({ agentUid, sealed: true, payload: null, payloadText: null }));
    expect(await stored()).toMatchObject([{ sealed: true, payload: null }]);
  });

  it('keeps JSON that holds an escaped NUL and half of a surrogate pair', async () => {
    const payloadText = '{"nul":"a\\u0000b","half":"\\ud800"}';
    expect(await stage.store(newEvent({ agentUid, payloadText, payload: JSON.parse(payloadText) }))).toEqual([
      'stored',
    ]);
    expect((await stored())[0]?.payload).toEqual({ nul: 'a\u0000b', half: '\ud800' });
  });

  it('gives dense positions in the order of each agent, over groups of hundreds', async () => {
    const agents = [agentUid, randomUUID(), randomUUID()];
    const before = await head();
    const events = Array.from({ length: 1_500 }, (_, index) =>
      newEvent({ agentUid: agents[index % 3] ?? agentUid, messageId: `m${index}` }),
    );
    const outcomes = await stage.store(...events);
    expect(new Set(outcomes)).toEqual(new Set(['stored']));
    expect(await head()).toBe(before + 1_500);
    const rows = await sql()<{ position: number; agent_uid: string; message_id: string }[]>`
      select position, agent_uid, message_id from events where position > ${before} order by position`;
    expect(rows.map((row) => row.position)).toEqual(events.map((_, index) => before + 1 + index));
    for (const uid of agents)
      expect(rows.filter((row) => row.agent_uid === uid).map((row) => row.message_id)).toEqual(
        events.filter((event) => event.agentUid === uid).map((event) => event.messageId),
      );
  });

  it('commits many events in few statements', async () => {
    let transactions = 0;
    const before = stage.bus.subscribe('events', () => transactions++);
    await stage.store(...Array.from({ length: 1_000 }, () => newEvent({ agentUid })));
    before();
    expect(transactions).toBe(2);
  });

  it('settles in the order of pushing', async () => {
    const order: number[] = [];
    const events = Array.from({ length: 700 }, () => newEvent({ agentUid }));
    await Promise.all(
      events.map(
        (event, index) =>
          new Promise<void>((resolve) =>
            stage.ingest.push(event, () => {
              order.push(index);
              resolve();
            }),
          ),
      ),
    );
    expect(order).toEqual(events.map((_, index) => index));
  });

  it('tells an event that comes again from one whose id says something else', async () => {
    const event = newEvent({ agentUid, messageId: 'm1' });
    const other = newEvent({ agentUid, messageId: 'm1', payload: 'something else' });
    expect(await stage.store(event)).toEqual(['stored']);
    expect(await stage.store(event)).toEqual(['duplicate']);
    expect(await stage.store(other)).toEqual(['conflict']);
    expect(await stage.store(newEvent({ agentUid: randomUUID(), messageId: 'm1' }))).toEqual(['stored']);
    expect(await stored()).toHaveLength(1);
  });

  it('tells them apart within one group too, and goes on around them', async () => {
    const event = newEvent({ agentUid, messageId: 'm1' });
    const other = newEvent({ agentUid, messageId: 'm1', payload: 'something else' });
    const last = newEvent({ agentUid, messageId: 'm2' });
    expect(await stage.store(event, { ...event }, other, { ...event }, last)).toEqual([
      'stored',
      'duplicate',
      'conflict',
      'duplicate',
      'stored',
    ]);
    expect(await stage.store(other, event, other)).toEqual(['conflict', 'duplicate', 'conflict']);
    expect((await stored()).map(({ messageId }) => messageId)).toEqual(['m1', 'm2']);
  });

  it('is not slowed down by an agent that repeats one id', async () => {
    let groups = 0;
    stage.bus.subscribe('events', () => groups++);
    const repeated = newEvent({ agentUid, messageId: 'again' });
    const others = Array.from({ length: 100 }, () => newEvent({ agentUid }));
    await stage.store(...others.flatMap((event) => [event, { ...repeated }]));
    expect(groups).toBe(1);
  });

  it.each([
    ['a body that is not JSON', { payloadText: '{broken' }],
    ['a name that is too long', { agentName: 'x'.repeat(256) }],
    ['text with NUL', { messageId: 'a\0b' }],
    ['a time that is none', { occurredAt: new Date(Number.NaN) }],
  ])('refuses %s, and the events around it are stored in order', async (_what, wrong) => {
    const [first, second] = [newEvent({ agentUid }), newEvent({ agentUid })];
    expect(await stage.store(first, newEvent({ agentUid, ...wrong }), second)).toEqual(['stored', 'refused', 'stored']);
    expect((await stored()).map(({ messageId }) => messageId)).toEqual([first.messageId, second.messageId]);
    expect(stage.errors).toHaveLength(1);
    expect(await stage.store(newEvent({ agentUid }))).toEqual(['stored']);
  });

  it('is not hurt by a link that throws at what it is told', async () => {
    stage.ingest.push(newEvent({ agentUid }), () => {
      throw new Error('a link failed');
    });
    expect(await stage.store(newEvent({ agentUid }))).toEqual(['stored']);
    expect(await stage.store(newEvent({ agentUid }))).toEqual(['stored']);
    expect(stage.errors.join()).toContain('a link failed');
  });

  it('says when too much waits, and calls back once when it does not any more', async () => {
    const settled: Promise<IngestOutcome[]>[] = [];
    const push = (count: number, given: Partial<NewEvent> = {}) =>
      settled.push(stage.store(...Array.from({ length: count }, () => newEvent({ agentUid, ...given }))));
    push(5_000);
    expect(stage.ingest.isSaturated).toBe(false);
    push(1);
    expect(stage.ingest.isSaturated).toBe(true);
    expect(stage.ingest.waiting).toBe(5_001);
    let resumed = 0;
    stage.ingest.whenDrained(() => {
      expect(stage.ingest.isSaturated).toBe(false);
      resumed++;
    });
    await Promise.all(settled);
    expect(resumed).toBe(1);
    expect(stage.ingest.waiting).toBe(0);
  });

  it.runIf(engine === engines.at(-1))('counts bytes as well as events', async () => {
    const settled = stage.store(newEvent({ agentUid, payloadText: JSON.stringify('x'.repeat(33 * 1024 * 1024)) }));
    expect(stage.ingest.isSaturated).toBe(true);
    await new Promise<void>((resolve) => stage.ingest.whenDrained(resolve));
    expect(await settled).toEqual(['stored']);
    expect(stage.ingest.isSaturated).toBe(false);
  });

  it('writes what waits before it stops', async () => {
    const settled = stage.store(...Array.from({ length: 1_200 }, () => newEvent({ agentUid })));
    await stage.stop(100_000);
    expect(new Set(await settled)).toEqual(new Set(['stored']));
    expect(stage.ingest.waiting).toBe(0);
  });
});
