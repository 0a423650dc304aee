import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type EventFilter, eventKinds, matchesFilter, type StoredEvent, severities } from '../../src/events/event.ts';
import type { PageRequest } from '../../src/paging.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { walkPages } from '../walk-pages.ts';
import { type EventsStage, newEvent, startEvents } from './stage.ts';

const everything = { orgId: null };

describe.each(engines)('pages of events on %s', (engine) => {
  let open: EngineDatabase;
  let stage: EventsStage;
  let all: readonly StoredEvent[];
  const agents = [randomUUID(), randomUUID(), randomUUID()];

  beforeAll(async () => {
    open = await openEngine(engine);
    stage = await startEvents(open.database);
    const events = Array.from({ length: 120 }, (_, index) =>
      newEvent({
        agentUid: agents[index % agents.length] ?? '',
        agentName: `agent-${index % agents.length}`,
        orgId: index % 5 === 0 ? 'acme' : 'default-org',
        kind: eventKinds[index % eventKinds.length] ?? 'logs',
        severity: severities[index % severities.length] ?? 'unknown',
        trusted: index % 7 !== 0,
        sealed: index % 11 === 0,
        messageId: `m${index}`,
        ...(index % 11 === 0 ? { payload: null, payloadText: null } : {}),
      }),
    );
    await stage.store(...events);
    all = (await stage.events.page(everything, { includeUntrusted: true }, { first: 500 })).items;
    expect(all).toHaveLength(120);
  });
  afterAll(async () => {
    await stage.stop(1_000);
    await open.close();
  });

  const filters: readonly (readonly [string, EventFilter])[] = [
    ['nothing asked for', {}],
    ['untrusted ones included', { includeUntrusted: true }],
    ['one kind', { kinds: ['threats'], includeUntrusted: true }],
    ['several kinds, one of them twice', { kinds: ['threats', 'logs', 'threats'] }],
    ['no kinds', { kinds: [] }],
    ['one agent', { agentUid: agents[1] }],
    ['one agent and kinds', { agentUid: agents[2], kinds: ['anomalies', 'status'], includeUntrusted: true }],
    ['high and worse, sealed ones passing', { minSeverity: 'high', includeUntrusted: true }],
    ['critical, of some kinds', { minSeverity: 'critical', kinds: ['processes', 'policies', 'logs'] }],
    ['any severity', { minSeverity: 'unknown' }],
  ];

  describe.each(filters)('with %s', (_what, filter) => {
    it.each([{ orgId: null }, { orgId: 'acme' }])(
      'gives the same forwards, backwards and in memory, in scope $orgId',
      async (scope) => {
        const expected = all.filter(
          (event) => matchesFilter(event, filter) && (scope.orgId ?? event.orgId) === event.orgId,
        );
        const ask = (request: PageRequest) => stage.events.page(scope, filter, request);
        for (const size of [1, 7, 500]) {
          for (const backwards of [false, true])
            expect(await walkPages({ ask, cursorOf: stage.events.cursorOf, size, backwards })).toEqual(expected);
        }
      },
    );

    it('gives the same for many agents at once', async () => {
      const { agentUid: _, ...rest } = filter;
      const range = { limit: 5, backwards: true, after: null, before: null };
      const pages = await stage.events.pageByAgent(everything, [...agents, randomUUID()], filter, range);
      expect(pages.size).toBe(4);
      for (const uid of agents) {
        const expected = all.filter((event) => event.agentUid === uid && matchesFilter(event, rest));
        expect(pages.get(uid)?.items).toEqual(expected.slice(-5));
        expect(pages.get(uid)?.hasPreviousPage).toBe(expected.length > 5);
      }
    });
  });

  it('lets a sealed event pass every severity, and one below it not', async () => {
    const found = await stage.events.page(
      everything,
      { minSeverity: 'critical', includeUntrusted: true },
      { first: 500 },
    );
    expect(found.items.some(({ sealed, severity }) => sealed && severity !== 'critical')).toBe(true);
    expect(found.items.some(({ sealed, severity }) => !sealed && severity !== 'critical')).toBe(false);
  });

  it('gives what lies between two cursors, both left out', async () => {
    const [after, before] = [all[10], all[20]].map((event) => event && stage.events.cursorOf(event));
    const between = await stage.events.page(everything, { includeUntrusted: true }, { first: 50, after, before });
    expect(between.items).toEqual(all.slice(11, 20));
    const none = await stage.events.page(
      everything,
      { includeUntrusted: true },
      { first: 50, after: before, before: after },
    );
    expect(none.items).toEqual([]);
  });

  it('finds events by position within the scope alone', async () => {
    const wanted = all.slice(0, 10);
    const positions = [...wanted.map(({ position }) => position), 10_000_000];
    const byPosition = (events: readonly StoredEvent[]) => [...events].sort((one, two) => one.position - two.position);
    expect(byPosition(await stage.events.findAll(everything, positions))).toEqual(wanted);
    expect(byPosition(await stage.events.findAll({ orgId: 'acme' }, positions))).toEqual(
      wanted.filter(({ orgId }) => orgId === 'acme'),
    );
    expect(await stage.events.findAll(everything, [])).toEqual([]);
  });

  it('finds the replies to messages, oldest first', async () => {
    const [asked, other, silent] = [randomUUID(), randomUUID(), randomUUID()];
    const agentUid = randomUUID();
    await stage.store(
      newEvent({ agentUid, messageId: 'r1', replyTo: asked }),
      newEvent({ agentUid, messageId: 'r2', replyTo: other }),
      newEvent({ agentUid, messageId: 'r3', replyTo: asked }),
    );
    const replies = await stage.events.repliesTo(everything, [asked, silent]);
    expect(replies.get(asked)?.map(({ messageId }) => messageId)).toEqual(['r1', 'r3']);
    expect(replies.get(silent)).toBeUndefined();
    expect(replies.get(other)).toBeUndefined();
  });

  it.each([
    '',
    'x',
    'ZXZlbnQ6',
    'ZXZlbnQ6LTE',
    'ZXZlbnQ6MHgxMA',
    'ZXZlbnQ6MWUz',
    'ZXZlbnQ6OTk5OTk5OTk5OTk5OTk5OTk5OTk',
    'bWVzc2FnZTox',
  ])('refuses the cursor %j', async (cursor) => {
    expect(() => stage.events.positionOf(cursor)).toThrow(expect.objectContaining({ code: 'CURSOR_INVALID' }));
    await expect(stage.events.page(everything, {}, { first: 1, after: cursor })).rejects.toMatchObject({
      code: 'CURSOR_INVALID',
    });
  });
});
