import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createBroadcastQueries, type NewBroadcast } from '../../src/messages/broadcast-queries.ts';
import { createBroadcastTransitions } from '../../src/messages/broadcast-transitions.ts';
import { maxBroadcastBytes } from '../../src/messages/broadcasts.ts';
import { maxPayloadBytes } from '../../src/messages/create-messages.ts';
import type { Broadcast, BroadcastPace, MessageDraft } from '../../src/messages/message.ts';
import type { NewMessage } from '../../src/messages/queries.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { insertAgent, insertAgents } from '../fleet/agents.ts';
import { changerOf } from '../support/changer.ts';
import { eventually } from '../support/eventually.ts';
import { draft, everything, type FakeLink, fakeLink, type MessagesStage, startMessages } from './stage.ts';

const refusal = (code: string) => expect.objectContaining({ code });

describe.each(engines)('broadcasts on %s', (engine) => {
  let open: EngineDatabase;
  let orgId: string;
  const stages: MessagesStage[] = [];

  beforeAll(async () => {
    open = await openEngine(engine);
  });
  afterAll(() => open.close());
  beforeEach(() => {
    orgId = `org-${randomUUID()}`;
  });
  afterEach(async () => {
    for (const stage of stages.splice(0)) await stage.stop();
    // What a test left unfinished is nobody's business any more.
    await sql()`update broadcasts set finished_at = now(), state = 'finished' where finished_at is null`;
  });

  const sql = () => open.database.sql;
  const agents = (count: number) => insertAgents(open.database, count, orgId);

  function start(options: Parameters<typeof startMessages>[1] = {}): MessagesStage {
    const stage = startMessages(open.database, options);
    stages.push(stage);
    return stage;
  }

  function broadcast(stage: MessagesStage, given: Partial<MessageDraft> = {}, pace: BroadcastPace = {}) {
    return stage.messages.broadcast(changerOf(orgId), { ...draft, ...given }, {}, pace);
  }

  function attach(stage: MessagesStage, uids: readonly string[], isRead: boolean | null = true): FakeLink[] {
    return uids.map((uid) => {
      const link = fakeLink(uid, 1);
      link.answer(isRead);
      stage.dispatch.attach(link);
      return link;
    });
  }

  const progress = async (stage: MessagesStage, { id }: Broadcast) => {
    const found = (await stage.messages.progress(everything, [id])).get(id);
    if (!found) throw new Error('no progress');
    return found;
  };
  /** What the messages themselves say. */
  const counted = async ({ id }: Broadcast) => {
    const rows = await sql()<{ status: string; count: number }[]>`
      select status, count(*) from message_queue where broadcast_id = ${id} group by status`;
    return Object.fromEntries(rows.map(({ status, count }) => [status === 'pending' ? 'queued' : status, count]));
  };
  const state = async (stage: MessagesStage, { id }: Broadcast) =>
    (await stage.messages.findBroadcast(everything, id))?.state;
  const until = (stage: MessagesStage, made: Broadcast, wanted: Broadcast['state']) =>
    eventually(async () => (await state(stage, made)) === wanted, 30_000);
  const setStatus = (made: Broadcast, status: string, limit: number) => sql()`
    update message_queue set status = ${status}, processed_at = now() where id in (
      select id from message_queue where broadcast_id = ${made.id} and status = 'pending' order by sequence limit ${limit})`;

  const many = engine === 'postgres' ? 20_000 : 2_000;

  it(`has ${many} messages, all counted, and gives each agent its own`, async () => {
    await agents(many);
    const stage = start({ isDispatching: false });
    const made = await broadcast(stage);
    expect(made).toMatchObject({ state: 'running', abortedReason: null });
    expect(await progress(stage, made)).toMatchObject({ targets: many, queued: many });
    const outcomes = await stage.messages.outcomesOfBroadcast(everything, made.id);
    expect(new Set(outcomes.map(({ agentName }) => agentName)).size).toBe(many);
    expect(await stage.messages.countUnreachable(everything, made.id)).toBe(many);
  });

  it('is finished once every message is final, and at once where it reaches nobody', async () => {
    const stage = start();
    const links = attach(stage, await agents(30));
    const made = await broadcast(stage);
    await until(stage, made, 'finished');
    expect(await progress(stage, made)).toMatchObject({ targets: 30, delivered: 30, queued: 0, sent: 0 });
    for (const link of links) expect(link.written).toHaveLength(1);
    orgId = `${orgId}-empty`;
    await until(stage, await broadcast(stage), 'finished');
  });

  it('tells of every change, of what fails at once too', async () => {
    const uids = await agents(3);
    await sql()`update agents set dialect = 'handoff' where uid = ${uids[0] ?? ''}`;
    const stage = start();
    attach(stage, uids);
    const made = await broadcast(stage);
    await until(stage, made, 'finished');
    const told = () => stage.changes.filter(({ broadcastId }) => broadcastId === made.id);
    await eventually(() => told().length === 5);
    const ofAgent = (uid: string | undefined) => told().flatMap((each) => (each.agentUid === uid ? each.status : []));
    expect(ofAgent(uids[0])).toEqual(['failed']);
    expect(ofAgent(uids[1])).toEqual(['sent', 'delivered']);
    expect(ofAgent(uids[2])).toEqual(['sent', 'delivered']);
  });

  it('counts exactly what its messages say, whatever becomes of them, before and after counts are folded', async () => {
    const stage = start({ isDispatching: false });
    await agents(60);
    const made = await broadcast(stage);
    const same = async () => expect(await progress(stage, made)).toMatchObject(await counted(made));
    for (const [status, number] of [
      ['sent', 20],
      ['failed', 3],
      ['expired', 4],
      ['cancelled', 5],
    ] as const) {
      // In many statements, each of which counts for itself.
      for (let index = 0; index < number; index++) await setStatus(made, status, 1);
      await same();
    }
    await sql()`update message_queue set status = 'delivered' where broadcast_id = ${made.id} and status = 'sent'`;
    await same();
    const rows = async () => (await sql()`select from broadcast_counts where broadcast_id = ${made.id}`).count;
    expect(await rows()).toBeGreaterThan(20);
    const transitions = createBroadcastTransitions(sql());
    await Promise.all([transitions.foldCounts(), transitions.foldCounts(), setStatus(made, 'sent', 1)]);
    await same();
    expect(await rows()).toBeLessThan(10);
  });

  it('keeps no other command waiting: one that comes meanwhile goes before the rest', async () => {
    const total = engine === 'postgres' ? 2_000 : 500;
    const quiet = start({ isDispatching: false });
    const uids = await agents(total);
    const { uid: lone } = await insertAgent(open.database);
    const made = await broadcast(quiet);
    const single = await quiet.messages.send(everything, lone, draft);

    const stage = start({ isDispatching: false });
    const order: string[] = [];
    const links = attach(stage, uids);
    const [last] = attach(stage, [lone]);
    for (const link of links)
      link.onWrite = () => {
        order.push('broadcast');
        if (order.length === 1) stage.bus.publish('queued', { agentUids: [lone] });
      };
    if (last) last.onWrite = () => order.push('single');
    stage.dispatch.start();
    stage.bus.publish('queuedForMany', {});
    await eventually(async () => (await progress(stage, made)).delivered === total, 20_000);
    expect(last?.written).toEqual([single.id]);
    expect(order.indexOf('single')).toBeLessThan(total * 0.75);
    await stage.dispatch.stop();
  });

  describe('that are cancelled', () => {
    it('take back what is not final, tell of it, and keep the rest', async () => {
      const stage = start();
      const uids = await agents(1_200);
      const sent = attach(stage, uids.slice(0, 1), null);
      attach(stage, uids.slice(1, 2), true);
      const made = await broadcast(stage);
      await eventually(async () => (await counted(made)).delivered === 1 && sent[0]?.asked === 1);
      const cancelled = await stage.messages.cancelBroadcast(changerOf(orgId), made.id);
      expect(['cancelling', 'cancelled']).toContain(cancelled.state);
      await until(stage, made, 'cancelled');
      expect(await progress(stage, made)).toMatchObject({ targets: 1_200, delivered: 1, cancelled: 1_199 });
      const told = () => stage.changes.filter((each) => each.broadcastId === made.id && each.status === 'cancelled');
      await eventually(() => told().length === 1_199);
      expect(new Set(told().map(({ id }) => id)).size).toBe(1_199);
      const failureOf = (uid: string | undefined) => told().find(({ agentUid }) => agentUid === uid)?.failure;
      expect(failureOf(uids[0])).toContain('may have read it');
      expect(failureOf(uids[2])).toContain('before it was sent');
    });

    it('are finished by another gateway where the first one dies', async () => {
      await agents(20);
      const dead = start();
      const made = await broadcast(dead);
      await dead.stop();
      expect(await dead.messages.cancelBroadcast(changerOf(orgId), made.id)).toMatchObject({ state: 'cancelling' });
      expect(await progress(dead, made)).toMatchObject({ queued: 20, cancelled: 0 });
      const other = start();
      await until(other, made, 'cancelled');
      expect(await progress(other, made)).toMatchObject({ queued: 0, cancelled: 20 });
    });

    it('are the same when they are cancelled again', async () => {
      await agents(2);
      const stage = start();
      const made = await broadcast(stage);
      await Promise.all([1, 2, 3].map(() => stage.messages.cancelBroadcast(changerOf(orgId), made.id)));
      await until(stage, made, 'cancelled');
      expect(await stage.messages.cancelBroadcast(everything, made.id)).toMatchObject({ state: 'cancelled' });
    });

    it('must be there, of the organisation, and not finished', async () => {
      const stage = start();
      await expect(stage.messages.cancelBroadcast(changerOf(orgId), randomUUID())).rejects.toEqual(
        refusal('NOT_FOUND'),
      );
      await expect(stage.messages.cancelBroadcast(changerOf(orgId), 'nonsense')).rejects.toEqual(refusal('NOT_FOUND'));
      const made = await broadcast(stage);
      await expect(stage.messages.cancelBroadcast(changerOf('acme'), made.id)).rejects.toEqual(refusal('NOT_FOUND'));
      await until(stage, made, 'finished');
      await expect(stage.messages.cancelBroadcast(changerOf(orgId), made.id)).rejects.toEqual(refusal('MESSAGE_FINAL'));
    });
  });

  describe('at a rate', () => {
    const release = () => createBroadcastTransitions(sql()).release();
    const pass = (made: Broadcast, ms: number) =>
      sql()`update broadcasts set released_until = now() - ${ms} * interval '1 millisecond' where id = ${made.id}`;

    it('go out at that rate, in order, whichever gateway looks and however many at once', async () => {
      const uids = await agents(20);
      const stage = start({ isDispatching: false });
      const made = await broadcast(stage, {}, { ratePerSecond: 5 });
      expect(await release()).toEqual([]);
      await pass(made, 1_000);
      const released = (await Promise.all([release(), release(), release()])).flat();
      expect(released.sort()).toEqual(uids.slice(0, 5));
      expect(await release()).toEqual([]);
      await pass(made, 400);
      expect((await release()).sort()).toEqual(uids.slice(5, 7));
      expect(await progress(stage, made)).toMatchObject({ queued: 20 });
    });

    it('do not make up for a pause', async () => {
      await agents(20);
      const made = await broadcast(start({ isDispatching: false }), {}, { ratePerSecond: 4 });
      await pass(made, 3_600_000);
      expect(await release()).toHaveLength(6);
      expect(await release()).toEqual([]);
    });

    it('hold up no other command, and reach every agent in the end', async () => {
      const uids = await agents(4);
      const stage = start();
      const links = attach(stage, uids);
      const made = await broadcast(stage, { priority: 'urgent' }, { ratePerSecond: 1 });
      const single = await stage.messages.send(everything, uids[3] ?? '', { ...draft, priority: 'low' });
      await eventually(async () => (await stage.messages.find(everything, single.id))?.status === 'delivered');
      expect(links[3]?.written).toEqual([single.id]);
      await eventually(async () => {
        await pass(made, 1_000);
        return (await progress(stage, made)).delivered === 4;
      });
      await until(stage, made, 'finished');
    });

    it('expire with the time that counts from their acceptance', async () => {
      await agents(3);
      const stage = start();
      const made = await broadcast(stage, { ttlSeconds: 60 }, { ratePerSecond: 1 });
      await sql()`update message_queue set expires_at = now() where broadcast_id = ${made.id}`;
      await until(stage, made, 'finished');
      expect((await progress(stage, made)).expired).toBeGreaterThanOrEqual(2);
    });

    it('are cancelled like any other', async () => {
      await agents(3);
      const stage = start();
      const made = await broadcast(stage, {}, { ratePerSecond: 1 });
      await stage.messages.cancelBroadcast(changerOf(orgId), made.id);
      await until(stage, made, 'cancelled');
      await pass(made, 60_000);
      expect(await release()).toEqual([]);
    });
  });

  describe('that stop when too many fail', () => {
    const results = async (stage: MessagesStage, made: Broadcast, good: number, bad: number) => {
      await setStatus(made, 'delivered', good);
      await setStatus(made, 'failed', Math.ceil(bad / 2));
      await setStatus(made, 'expired', Math.floor(bad / 2));
      await createBroadcastTransitions(sql()).abort(10);
      return stage.messages.findBroadcast(everything, made.id);
    };

    it.each([
      ['at the percentage', 9, 3, 'aborting'],
      ['below it', 10, 3, 'running'],
      ['at it, of too few results', 6, 3, 'running'],
    ])('are %s: %i good, %i bad: %s', async (_where, good, bad, wanted) => {
      await agents(20);
      const stage = start({ isDispatching: false });
      const made = await broadcast(stage, {}, { abortAtFailurePercent: 25 });
      expect(await results(stage, made, good, bad)).toMatchObject({ state: wanted });
    });

    it('do not count what failed when it was accepted', async () => {
      const uids = await agents(30);
      await sql()`update agents set dialect = 'handoff' where uid = any(${uids.slice(0, 15)})`;
      const stage = start({ isDispatching: false });
      const made = await broadcast(stage, {}, { abortAtFailurePercent: 25 });
      expect(await results(stage, made, 10, 0)).toMatchObject({ state: 'running' });
    });

    it('go on without a limit', async () => {
      await agents(20);
      const stage = start({ isDispatching: false });
      expect(await results(stage, await broadcast(stage), 0, 15)).toMatchObject({ state: 'running' });
    });

    it('take back what is left and say why', async () => {
      await agents(20);
      const stage = start();
      const made = await broadcast(stage, {}, { abortAtFailurePercent: 50 });
      await setStatus(made, 'delivered', 5);
      await setStatus(made, 'failed', 7);
      await until(stage, made, 'aborted');
      expect(await stage.messages.findBroadcast(everything, made.id)).toMatchObject({
        abortedReason: '7 of 12 results were failures; it was to stop at 50 %',
      });
      expect(await progress(stage, made)).toMatchObject({ delivered: 5, failed: 7, cancelled: 8, queued: 0 });
    });
  });

  it('take so many bytes over all their messages and no more', async () => {
    await agents(4);
    const queries = createBroadcastQueries(open.database);
    const message: NewMessage = {
      ...{ kind: draft.kind, type: draft.type, priorityRank: 1, payloadText: '12345' },
      ...{ maxRetries: 0, ttlMs: 1_000, idempotencyKey: null, requestHash: 'hash' },
    };
    const insert = (maxBytes: number): Promise<NewBroadcast> =>
      queries.insert(changerOf(orgId), {}, message, {}, { maxOpen: 10, maxBytes });
    expect(await insert(19)).toEqual({ outcome: 'tooLarge', targets: 4 });
    expect(await insert(20)).toMatchObject({ outcome: 'accepted', queued: 4 });
    const [row] = await sql()`select count(*) from broadcasts where org_id = ${orgId}`;
    expect(row?.count).toBe(1);
  });

  it('are refused with the reason where they would take too much', async () => {
    const stage = start({ isDispatching: false });
    const payload = 'x'.repeat(maxPayloadBytes - 2);
    await agents(maxBroadcastBytes / maxPayloadBytes + 1);
    await expect(broadcast(stage, { payload })).rejects.toEqual(refusal('PAYLOAD_TOO_LARGE'));
    expect(await sql()`select from message_queue where org_id = ${orgId} limit 1`).toHaveLength(0);
  });

  describe('with an idempotency key', () => {
    it.each<[string, BroadcastPace]>([
      ['rate', { ratePerSecond: 1 }],
      ['limit of failures', { abortAtFailurePercent: 1 }],
    ])('are refused with another %s', async (_what, pace) => {
      const stage = start({ isDispatching: false });
      const made = await broadcast(stage, { idempotencyKey: 'k' });
      await expect(broadcast(stage, { idempotencyKey: 'k' }, pace)).rejects.toEqual(refusal('IDEMPOTENCY_CONFLICT'));
      expect(await broadcast(stage, { idempotencyKey: 'k' })).toMatchObject({ id: made.id });
    });

    it.runIf(engine === 'postgres')('are made once although the answer was lost', async () => {
      await agents(3);
      const { database, proxy } = await open.throughProxy();
      const cut = startMessages(database, { isDispatching: false });
      stages.push(cut);
      const lost = proxy.cutAnswer('SELECT 1');
      const first = cut.messages.broadcast(changerOf(orgId), { ...draft, idempotencyKey: 'k' }, {});
      await expect(first).rejects.toThrow();
      await lost;
      const stage = start({ isDispatching: false });
      const again = await broadcast(stage, { idempotencyKey: 'k' });
      expect(await progress(stage, again)).toMatchObject({ targets: 3 });
      const [row] = await sql()`select count(*) from message_queue where org_id = ${orgId}`;
      expect(row?.count).toBe(3);
    });
  });
});
