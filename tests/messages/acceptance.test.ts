import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Changer } from '../../src/audit/actor.ts';
import { maxPayloadBytes } from '../../src/messages/create-messages.ts';
import type { MessageDraft, MessageStatus } from '../../src/messages/message.ts';
import { handoffFailure } from '../../src/messages/queries.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { type GivenAgent, insertAgent } from '../fleet/agents.ts';
import { changerOf } from '../support/changer.ts';
import { draft, everything, type MessagesStage, startMessages } from './stage.ts';

describe.each(engines)('accepting messages on %s', (engine) => {
  let open: EngineDatabase;
  let stage: MessagesStage;
  let orgId: string;
  let agentUid: string;

  beforeAll(async () => {
    open = await openEngine(engine);
  });
  afterAll(() => open.close());
  beforeEach(async () => {
    orgId = `org-${randomUUID()}`;
    agentUid = await agent({ name: 'web-1' });
    stage = startMessages(open.database, { queueSize: 3, isDispatching: false, ttlMs: 90_000, retryAttempts: 7 });
  });
  afterEach(() => stage.stop());

  const agent = async (given: GivenAgent = {}) => (await insertAgent(open.database, { orgId, ...given })).uid;
  const send = (given: Partial<MessageDraft> = {}, ref = agentUid, scope: Changer = everything) =>
    stage.messages.send(scope, ref, { ...draft, ...given });
  const refusal = (code: string) => expect.objectContaining({ code });
  const rows = () => open.database.sql`select * from message_queue where org_id = ${orgId}`;

  it('stores what it accepts, with the defaults of the gateway', async () => {
    const message = await send();
    expect(message).toMatchObject({
      agentUid,
      agentName: 'web-1',
      orgId,
      priority: 'normal',
      maxRetries: 7,
      attempts: 0,
    });
    expect(message.expiresAt.getTime() - message.createdAt.getTime()).toBe(90_000);
    expect(await stage.messages.find(everything, message.id)).toEqual(message);
    expect(stage.changes).toEqual([message]);
    const given = await send({ priority: 'urgent', ttlSeconds: 5, maxRetries: 0, type: 'event', kind: 'tests' });
    expect(given).toMatchObject({ priority: 'urgent', maxRetries: 0, type: 'event', kind: 'tests' });
    expect(given.expiresAt.getTime() - given.createdAt.getTime()).toBe(5_000);
  });

  it.each([[null], [0], [''], [[]], [{ a: { b: ['é', 'a\0b', '😀'] } }]])('keeps the payload %j', async (payload) => {
    const message = await send({ payload });
    expect((await stage.messages.find(everything, message.id))?.payload).toEqual(payload);
  });

  it('takes payloads up to their limit and refuses larger ones and what is not JSON', async () => {
    const quotes = 2;
    expect((await send({ payload: 'x'.repeat(maxPayloadBytes - quotes) })).status).toBe('pending');
    await expect(send({ payload: 'x'.repeat(maxPayloadBytes - quotes + 1) })).rejects.toEqual(
      refusal('PAYLOAD_TOO_LARGE'),
    );
    await expect(send({ payload: 'é'.repeat(maxPayloadBytes / 2) })).rejects.toEqual(refusal('PAYLOAD_TOO_LARGE'));
    await expect(send({ payload: undefined })).rejects.toEqual(refusal('BAD_USER_INPUT'));
  });

  it('finds the agent by name or uid, within the scope alone', async () => {
    expect((await send({}, 'web-1', changerOf(orgId))).agentUid).toBe(agentUid);
    await expect(send({}, agentUid, changerOf('acme'))).rejects.toEqual(refusal('AGENT_NOT_FOUND'));
    await expect(send({}, 'web-2', changerOf(orgId))).rejects.toEqual(refusal('AGENT_NOT_FOUND'));
    const message = await send();
    expect(await stage.messages.find({ orgId }, message.id)).toEqual(message);
    expect(await stage.messages.find({ orgId: 'acme' }, message.id)).toBeNull();
    for (const id of [randomUUID(), 'nonsense', '']) expect(await stage.messages.find(everything, id)).toBeNull();
  });

  it('fails a message for a handoff agent at once and says why; one that never spoke is served', async () => {
    const failed = await send({}, await agent({ dialect: 'handoff' }));
    expect(failed).toMatchObject({ status: 'failed', failure: handoffFailure, attempts: 0 });
    expect((await send({}, await agent({ dialect: null }))).status).toBe('pending');
  });

  it('refuses a revoked agent and a closed channel, and no other', async () => {
    await expect(send({}, await agent({ enrollment: 'revoked' }))).rejects.toEqual(refusal('AGENT_REVOKED'));
    expect((await send({}, await agent({ enrollment: 'pending' }))).status).toBe('pending');
    await stage.fleet.setChannelActive(everything, agentUid, 'backend.policies', false);
    await expect(send({ kind: 'policies' })).rejects.toEqual(refusal('CHANNEL_CLOSED'));
    expect((await send({ kind: 'tests' })).status).toBe('pending');
    await stage.fleet.setChannelActive(everything, agentUid, 'agent.tests', false);
    expect((await send({ kind: 'tests' })).status).toBe('pending');
    await stage.fleet.setChannelActive(everything, agentUid, 'backend.policies', true);
    expect((await send({ kind: 'policies' })).status).toBe('pending');
  });

  it('accepts as many undelivered messages as fit, one more when one is final, and counts no other agent', async () => {
    const [first] = [await send(), await send(), await send()];
    await expect(send()).rejects.toEqual(refusal('QUEUE_FULL'));
    expect((await send({}, await agent())).status).toBe('pending');
    await open.database.sql`update message_queue set status = 'sent' where agent_id = ${agentUid}`;
    await expect(send()).rejects.toEqual(refusal('QUEUE_FULL'));
    await stage.messages.cancel(everything, first.id);
    await send();
    await expect(send()).rejects.toEqual(refusal('QUEUE_FULL'));
  });

  it('accepts not one more when many race for the last places, from several gateways, and keeps nobody else waiting', async () => {
    const elsewhere = startMessages(await open.another(), { queueSize: 3, isDispatching: false });
    const other = await agent();
    const race = await Promise.allSettled(
      Array.from({ length: 30 }, (_, index) =>
        (index % 2 ? stage : elsewhere).messages.send(everything, agentUid, { ...draft, payload: index }),
      ),
    );
    expect(race.filter(({ status }) => status === 'fulfilled')).toHaveLength(3);
    for (const result of race) if (result.status === 'rejected') expect(result.reason).toEqual(refusal('QUEUE_FULL'));
    expect(await rows()).toHaveLength(3);
    expect((await send({}, other)).status).toBe('pending');
    await elsewhere.stop();
  });

  it('accepts up to its limit also where it is far from it at first', async () => {
    const wide = startMessages(open.database, { queueSize: 210, isDispatching: false });
    const race = await Promise.allSettled(
      Array.from({ length: 240 }, () => wide.messages.send(everything, agentUid, draft)),
    );
    expect(race.filter(({ status }) => status === 'fulfilled')).toHaveLength(210);
    await wide.stop();
  });

  it.runIf(engine === 'postgres')(
    'gives the message whose acceptance was never answered to who asks again',
    async () => {
      const { database, proxy } = await open.throughProxy();
      const cut = startMessages(database, { isDispatching: false });
      const hinted: string[] = [];
      cut.bus.subscribe('queued', ({ agentUids }) => hinted.push(...agentUids));
      const ask = () => cut.messages.send(everything, agentUid, { ...draft, idempotencyKey: 'k' });
      const lost = proxy.cutAnswer('backend.policies');
      const first = ask();
      await lost;
      await expect(first).rejects.toThrow();
      const again = await ask();
      expect(again).toMatchObject({ agentUid, status: 'pending' });
      expect(hinted).toEqual([agentUid]);
      expect((await rows()).map(({ id }) => id)).toEqual([again.id]);
      await expect(
        cut.messages.send(everything, agentUid, { ...draft, payload: 2, idempotencyKey: 'k' }),
      ).rejects.toEqual(refusal('IDEMPOTENCY_CONFLICT'));
      await cut.stop();
    },
  );

  it('answers each of those that are asked for at once by itself, also where the database takes none for the sake of one', async () => {
    const others = await Promise.all(Array.from({ length: 20 }, () => agent()));
    const revoked = await agent({ enrollment: 'revoked' });
    const handoff = await agent({ dialect: 'handoff' });
    await stage.fleet.setChannelActive(everything, agentUid, 'backend.tests', false);
    const refs = [...others, randomUUID(), revoked, handoff, 'a\0name', ...others];
    const [closed, ...results] = await Promise.allSettled([
      send({ kind: 'tests' }),
      ...refs.map((ref, index) => send({ payload: index }, ref)),
    ]);
    expect(closed).toMatchObject({ reason: { code: 'CHANNEL_CLOSED' } });
    for (const [index, result] of results.entries()) {
      const ref = refs[index] ?? '';
      if (others.includes(ref))
        expect(result).toMatchObject({ value: { agentUid: ref, payload: index, status: 'pending' } });
      else if (ref === handoff) expect(result).toMatchObject({ value: { status: 'failed', failure: handoffFailure } });
      else if (ref === revoked) expect(result).toMatchObject({ reason: { code: 'AGENT_REVOKED' } });
      else expect(result).toMatchObject({ status: 'rejected' });
    }
    expect(await rows()).toHaveLength(2 * others.length + 1);
  });

  it('takes an idempotency key for the same whether the agent is named or given by uid', async () => {
    const first = await send({ idempotencyKey: 'k' });
    expect(await send({ idempotencyKey: 'k' }, 'web-1', changerOf(orgId))).toEqual(first);
  });

  it('gives the same message for the same idempotency key, however often and even when it could not be sent now', async () => {
    const first = await send({ idempotencyKey: 'k' });
    expect(await send({ idempotencyKey: 'k' })).toEqual(first);
    await send();
    await send();
    expect(await send({ idempotencyKey: 'k' })).toEqual(first);
    await expect(send({ idempotencyKey: 'other' })).rejects.toEqual(refusal('QUEUE_FULL'));
    await stage.messages.cancel(everything, first.id);
    expect(await send({ idempotencyKey: 'k' })).toMatchObject({ id: first.id, status: 'cancelled' });
    expect(await rows()).toHaveLength(3);
  });

  it.each<[string, Partial<MessageDraft>]>([
    ['payload', { payload: { rule: 2 } }],
    ['channel', { kind: 'tests' }],
    ['type', { type: 'event' }],
    ['priority', { priority: 'high' }],
    ['time to live', { ttlSeconds: 1 }],
    ['retries', { maxRetries: 1 }],
  ])('refuses an idempotency key that comes with another %s', async (_what, change) => {
    await send({ idempotencyKey: 'k' });
    await expect(send({ idempotencyKey: 'k', ...change })).rejects.toEqual(refusal('IDEMPOTENCY_CONFLICT'));
  });

  it('keeps idempotency keys of one organisation from another, and refuses one for another agent', async () => {
    const first = await send({ idempotencyKey: 'k' });
    await expect(send({ idempotencyKey: 'k' }, await agent())).rejects.toEqual(refusal('IDEMPOTENCY_CONFLICT'));
    const elsewhere = await send({ idempotencyKey: 'k' }, await agent({ orgId: `${orgId}-too` }));
    expect(elsewhere.id).not.toBe(first.id);
  });

  it('makes one message of many that come at once with one idempotency key', async () => {
    const sent = await Promise.all(Array.from({ length: 20 }, () => send({ idempotencyKey: 'k' })));
    expect(new Set(sent.map(({ id }) => id)).size).toBe(1);
    expect(await rows()).toHaveLength(1);
    const mixed = await Promise.allSettled(
      Array.from({ length: 10 }, (_, index) => send({ idempotencyKey: 'mixed', payload: index % 2 })),
    );
    const accepted = mixed.flatMap((result) => (result.status === 'fulfilled' ? [result.value.id] : []));
    const refused = mixed.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
    expect(new Set(accepted).size).toBe(1);
    expect(refused).toHaveLength(5);
    for (const error of refused) expect(error).toEqual(refusal('IDEMPOTENCY_CONFLICT'));
  });

  describe('for many agents', () => {
    const broadcast = (given: Partial<MessageDraft> = {}, filter = {}) =>
      stage.messages.broadcast(changerOf(orgId), { ...draft, ...given }, filter);
    const progressOf = async (id: string) => (await stage.messages.progress(everything, [id])).get(id);

    it('accepts one message each, and fails at once what can never arrive', async () => {
      const handoff = await agent({ dialect: 'handoff' });
      const closed = await agent();
      const full = await agent();
      await agent({ enrollment: 'revoked' });
      await agent({ enrollment: 'pending' });
      await agent({ orgId: `${orgId}-too` });
      await stage.fleet.setChannelActive(everything, closed, 'backend.policies', false);
      for (let index = 0; index < 3; index++) await send({}, full);
      let hints = 0;
      stage.bus.subscribe('queuedForMany', () => hints++);

      const { id } = await broadcast();
      expect(await progressOf(id)).toEqual({
        targets: 4,
        queued: 1,
        sent: 0,
        delivered: 0,
        failed: 3,
        expired: 0,
        cancelled: 0,
      });
      const { items } = await stage.messages.pageOfBroadcast(everything, id, undefined, { first: 10 });
      const failures = new Map(items.map(({ agentUid, failure }) => [agentUid, failure]));
      expect(failures.get(agentUid)).toBeNull();
      expect(failures.get(handoff)).toBe(handoffFailure);
      expect(failures.get(closed)).toContain('switched this channel');
      expect(failures.get(full)).toContain('Too many');
      expect(hints).toBe(1);
      expect(items.every(({ broadcastId }) => broadcastId === id)).toBe(true);
    });

    it('counts each status, and pages by status', async () => {
      for (let index = 0; index < 5; index++) await agent();
      const { id } = await broadcast();
      const statuses: MessageStatus[] = ['sent', 'delivered', 'failed', 'expired', 'cancelled'];
      const { items } = await stage.messages.pageOfBroadcast(everything, id, undefined, { first: 10 });
      for (const [index, status] of statuses.entries())
        await open.database.sql`update message_queue set status = ${status} where id = ${items[index]?.id ?? null}`;
      expect(await progressOf(id)).toEqual({
        targets: 6,
        queued: 1,
        sent: 1,
        delivered: 1,
        failed: 1,
        expired: 1,
        cancelled: 1,
      });
      expect(await stage.messages.countOfBroadcast(everything, id, ['sent', 'failed'])).toBe(2);
      const first = await stage.messages.pageOfBroadcast(everything, id, ['pending', 'sent', 'failed'], { first: 2 });
      expect(first.hasNextPage).toBe(true);
      const after = first.items.at(-1);
      const rest = await stage.messages.pageOfBroadcast(everything, id, ['pending', 'sent', 'failed'], {
        first: 2,
        after: after && stage.messages.cursorOf(after),
      });
      expect([...first.items, ...rest.items].map(({ status }) => status)).toEqual(['sent', 'failed', 'pending']);
      const last = await stage.messages.pageOfBroadcast(everything, id, undefined, { last: 1 });
      expect(last.items[0]?.status).toBe('pending');
      expect(last.hasPreviousPage).toBe(true);
    });

    it('reaches those that match alone', async () => {
      const labelled = await agent({ labels: ['web'] });
      await agent({ labels: ['db'] });
      await agent({ labels: ['web'], enrollment: 'revoked' });
      const waiting = await agent({ labels: ['web'], enrollment: 'pending' });
      const targets = async (filter: object) => {
        const { id } = await broadcast({}, filter);
        return (await stage.messages.pageOfBroadcast(everything, id, undefined, {})).items.map((item) => item.agentUid);
      };
      expect(await targets({ labels: ['web'] })).toEqual([labelled]);
      expect(await targets({ labels: ['web'], enrollment: 'pending' })).toEqual([waiting]);
      expect(await targets({ enrollment: 'revoked' })).toEqual([]);
      expect(await targets({ search: 'nobody' })).toEqual([]);
    });

    it('is made once for one idempotency key, and refused for another body or other targets', async () => {
      const made = await Promise.all(Array.from({ length: 8 }, () => broadcast({ idempotencyKey: 'k' })));
      expect(new Set(made.map(({ id }) => id)).size).toBe(1);
      expect(await rows()).toHaveLength(1);
      await expect(broadcast({ idempotencyKey: 'k', payload: 2 })).rejects.toEqual(refusal('IDEMPOTENCY_CONFLICT'));
      await expect(broadcast({ idempotencyKey: 'k' }, { labels: ['web'] })).rejects.toEqual(
        refusal('IDEMPOTENCY_CONFLICT'),
      );
      expect((await broadcast({ idempotencyKey: 'other' })).id).not.toBe(made[0]?.id);
      expect((await broadcast()).id).not.toBe((await broadcast()).id);
    });

    it('is found within its organisation, or by whoever may see every one', async () => {
      const { id } = await broadcast();
      expect(await stage.messages.findBroadcast({ orgId }, id)).toMatchObject({ id, orgId, kind: 'policies' });
      expect(await stage.messages.findBroadcast(everything, id)).toMatchObject({ id });
      expect(await stage.messages.findBroadcast({ orgId: 'acme' }, id)).toBeNull();
      expect(await stage.messages.findBroadcast(everything, 'nonsense')).toBeNull();
      const none = await stage.messages.progress(everything, [randomUUID()]);
      expect([...none.values()]).toMatchObject([{ targets: 0, queued: 0 }]);
    });
  });

  it('gives pages and counts of the messages of many agents', async () => {
    const other = await agent();
    const sent = [await send(), await send(), await send()];
    const theirs = await send({}, other);
    await stage.messages.cancel(everything, sent[0]?.id ?? '');
    const range = { limit: 2, backwards: false, after: null, before: null };
    const silent = randomUUID();
    const pages = await stage.messages.pageByAgent(everything, [agentUid, other, silent], undefined, range);
    expect(pages.get(agentUid)?.items.map(({ id }) => id)).toEqual(sent.slice(0, 2).map(({ id }) => id));
    expect(pages.get(agentUid)?.hasNextPage).toBe(true);
    expect(pages.get(other)?.items.map(({ id }) => id)).toEqual([theirs.id]);
    expect(pages.get(silent)?.items).toEqual([]);
    const waiting = await stage.messages.pageByAgent(everything, [agentUid], ['pending'], {
      ...range,
      backwards: true,
      limit: 1,
    });
    expect(waiting.get(agentUid)).toMatchObject({ items: [{ id: sent[2]?.id }], hasPreviousPage: true });
    expect(await stage.messages.countByAgent(everything, [agentUid, other], ['pending'])).toEqual(
      new Map([
        [agentUid, 2],
        [other, 1],
      ]),
    );
    expect(await stage.messages.countByAgent(everything, [agentUid], undefined)).toEqual(new Map([[agentUid, 3]]));
  });

  it.each(['', 'nonsense', 'bWVzc2FnZTo', 'bWVzc2FnZToweDE', 'ZXZlbnQ6MQ'])('refuses the cursor %j', (cursor) => {
    expect(() => stage.messages.keyOf(cursor)).toThrow(refusal('CURSOR_INVALID'));
  });
});
