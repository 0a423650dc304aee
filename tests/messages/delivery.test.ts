import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Message, MessageDraft } from '../../src/messages/message.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { insertAgent } from '../fleet/agents.ts';
import { changerOf } from '../support/changer.ts';
import { eventually } from '../support/eventually.ts';
import { draft, everything, fakeLink, type MessagesStage, startMessages } from './stage.ts';

describe.each(engines)('delivering messages on %s', (engine) => {
  let open: EngineDatabase;
  let stage: MessagesStage;
  let agentUid: string;
  const stages: MessagesStage[] = [];

  beforeAll(async () => {
    open = await openEngine(engine);
  });
  afterAll(() => open.close());
  beforeEach(async () => {
    ({ uid: agentUid } = await insertAgent(open.database, { epoch: 5 }));
    stage = start();
  });
  afterEach(async () => {
    for (const each of stages.splice(0)) await each.stop();
  });

  function start(options: Parameters<typeof startMessages>[1] = {}): MessagesStage {
    const started = startMessages(open.database, options);
    stages.push(started);
    return started;
  }

  function attach(epoch = 5, isRead: boolean | null = true) {
    const link = fakeLink(agentUid, epoch);
    link.answer(isRead);
    stage.dispatch.attach(link);
    return link;
  }

  const sql = () => open.database.sql;
  const send = (given: Partial<MessageDraft> = {}) => stage.messages.send(everything, agentUid, { ...draft, ...given });
  const now = async (message: { id: string }) => {
    const found = await stage.messages.find(everything, message.id);
    if (!found) throw new Error('the message is gone');
    return found;
  };
  const until = (message: { id: string }, status: Message['status']) =>
    eventually(async () => {
      const found = await now(message);
      return found.status === status && found;
    });
  const setEpoch = (epoch: number) => sql()`update agents set epoch = ${epoch} where uid = ${agentUid}`;
  const row = async (message: { id: string }) => (await sql()`select * from message_queue where id = ${message.id}`)[0];

  it('takes a message to a connected agent at once: pending, sent, delivered', async () => {
    const link = attach();
    const message = await send({ payload: { rule: [1, 'é', null] } });
    expect(message).toMatchObject({ status: 'pending', attempts: 0, sentAt: null, deliveredAt: null, failure: null });
    const delivered = await until(message, 'delivered');
    expect(delivered).toMatchObject({ attempts: 1, sentAt: expect.any(Date), deliveredAt: expect.any(Date) });
    expect(link.written).toEqual([message.id]);
    expect(link.bodies).toEqual([{ rule: [1, 'é', null] }]);
    expect(stage.changes.map(({ status }) => status)).toEqual(['pending', 'sent', 'delivered']);
    expect(await row(message)).toMatchObject({
      encrypted_payload: `sealed ${message.id}`,
      nonce: 'nonce',
      signature: 'signature',
      retry_count: 0,
      processed_at: expect.anything(),
    });
  });

  it('keeps a message for an agent that is not connected until it comes', async () => {
    const message = await send();
    expect(await row(message)).toMatchObject({ encrypted_payload: '', nonce: '', signature: '' });
    const link = attach();
    await until(message, 'delivered');
    expect(link.written).toEqual([message.id]);
  });

  it('finds what waits although the hint was lost', async () => {
    const link = attach();
    const elsewhere = start({ isDispatching: false });
    const message = await elsewhere.messages.send(everything, agentUid, draft);
    await until(message, 'delivered');
    expect(link.written).toEqual([message.id]);
  });

  it('sends in order, the most urgent first, and asks for a barrier before it sends more', async () => {
    const ids: string[] = [];
    for (let index = 0; index < 14; index++) ids.push((await send({ payload: index })).id);
    const low = await send({ priority: 'low' });
    const urgent = await send({ priority: 'urgent' });
    const high = await send({ priority: 'high' });
    const link = attach(5, null);
    await eventually(() => link.asked === 1);
    expect(link.written).toEqual([urgent.id, high.id, ...ids.slice(0, 8)]);
    const late = await send({ priority: 'urgent' });
    await stage.messages.untilWritten(late, 400);
    expect(link.written).toHaveLength(10);
    link.answer(true);
    await until(low, 'delivered');
    expect(link.written).toEqual([urgent.id, high.id, ...ids.slice(0, 8), late.id, ...ids.slice(8), low.id]);
  });

  it('sends again what was not read, before anything behind it, and counts the attempts', async () => {
    const link = attach(5, null);
    const first = await send();
    await eventually(() => link.asked === 1);
    const behind = await send();
    link.answer(false);
    await until(first, 'pending');
    expect(await now(first)).toMatchObject({ attempts: 1 });
    expect((await row(first))?.not_before).not.toBeNull();
    link.answer(true);
    await sql()`update message_queue set not_before = now() where id = ${first.id}`;
    await until(behind, 'delivered');
    expect(link.written).toEqual([first.id, first.id, behind.id]);
    expect(await now(first)).toMatchObject({ status: 'delivered', attempts: 2 });
    expect(await row(first)).toMatchObject({ retry_count: 1 });
  });

  it('lets a more urgent message past one that waits for its next attempt', async () => {
    const link = attach(5, null);
    const first = await send();
    await eventually(() => link.asked === 1);
    link.answer(false);
    await until(first, 'pending');
    link.answer(true);
    const [behind, urgent] = [await send(), await send({ priority: 'urgent' })];
    await until(urgent, 'delivered');
    expect(link.written).toEqual([first.id, urgent.id]);
    expect(await now(behind)).toMatchObject({ status: 'pending' });
  });

  it.each([
    [0, 1],
    [2, 3],
  ])('fails a message with %i retries after %i attempts, for good', async (maxRetries, attempts) => {
    const link = attach(5, false);
    const message = await send({ maxRetries });
    for (let attempt = 0; attempt < attempts; attempt++) {
      await eventually(() => link.written.length === attempt + 1);
      await eventually(async () => (await now(message)).status !== 'sent');
      await sql()`update message_queue set not_before = now() where id = ${message.id}`;
    }
    const failed = await until(message, 'failed');
    expect(failed).toMatchObject({ attempts, failure: `It was sent ${attempts} times and never confirmed` });
    link.answer(true);
    const next = await send();
    await until(next, 'delivered');
    expect(link.written.filter((id) => id === message.id)).toHaveLength(attempts);
    expect((await row(message))?.processed_at).not.toBeNull();
  });

  it('takes back what it claimed and could not write, and the attempt does not count', async () => {
    const link = fakeLink(agentUid, 5);
    link.answer(true);
    link.onWrite = () => {
      link.canWrite = false;
    };
    stage.dispatch.attach(link);
    const message = await send({ maxRetries: 0 });
    await eventually(() => stage.changes.length === 3);
    expect(stage.changes.map(({ status }) => status)).toEqual(['pending', 'sent', 'pending']);
    expect(await now(message)).toMatchObject({ status: 'pending', attempts: 0, sentAt: null });
    expect(link.written).toEqual([]);
    link.onWrite = () => {};
    link.canWrite = true;
    expect(await until(message, 'delivered')).toMatchObject({ attempts: 1 });
  });

  it('writes nothing whose time ran out while it was being claimed', async () => {
    let monotonicMs = 0;
    const sluggish = start({ monotonicMs: () => monotonicMs });
    await stage.dispatch.stop();
    const [late, soon] = [await send({ ttlSeconds: 60 }), await send({ ttlSeconds: 180 })];
    const link = fakeLink(agentUid, 5);
    link.answer(true);
    link.onWrite = () => {
      monotonicMs += 120_000;
      link.onWrite = () => {
        link.canWrite = false;
      };
    };
    sluggish.dispatch.attach(link);
    await until(soon, 'delivered');
    expect(link.written).toEqual([soon.id]);
    await eventually(async () => (await now(late)).attempts === 0);
  });

  it('settles each message of a batch by itself, and sends the next batch when all are settled', async () => {
    const link = fakeLink(agentUid, 5);
    await stage.dispatch.stop();
    const [first, second, third] = [await send(), await send(), await send()];
    const other = start();
    other.dispatch.attach(link);
    await eventually(() => link.written.length === 3);
    const next = await send();
    other.bus.publish('queued', { agentUids: [agentUid] });
    link.confirm(third.id, 'read');
    expect(await until(third, 'delivered')).toMatchObject({ attempts: 1 });
    link.confirm(first.id, { refused: 'no such rule' });
    expect(await until(first, 'failed')).toMatchObject({ failure: 'The agent refused it: no such rule' });
    expect(await now(second)).toMatchObject({ status: 'sent' });
    expect(link.written).toEqual([first.id, second.id, third.id]);
    link.confirm(second.id, 'read');
    await eventually(() => link.written.length === 4);
    link.confirm(next.id, 'read');
    await until(next, 'delivered');
    expect(link.written).toEqual([first.id, second.id, third.id, next.id]);
    expect(await row(first)).toMatchObject({
      encrypted_payload: `sealed ${first.id}`,
      processed_at: expect.anything(),
    });
  });

  it('sends nothing over a link that cannot write, and does not even claim', async () => {
    const link = fakeLink(agentUid, 5);
    link.canWrite = false;
    stage.dispatch.attach(link);
    const message = await send();
    await stage.messages.untilWritten(message, 4_000);
    expect(await now(message)).toMatchObject({ status: 'pending', attempts: 0 });
    expect(link.bodies).toEqual([]);
  });

  it('lets an older link neither claim nor confirm once a newer one owns the agent', async () => {
    const older = attach(5, null);
    const first = await send();
    await eventually(() => older.asked === 1);
    await setEpoch(6);
    // Elsewhere, another gateway holds the newer link and takes over what the older one left.
    const elsewhere = start();
    const newer = fakeLink(agentUid, 6);
    elsewhere.dispatch.attach(newer);
    await eventually(() => newer.written.length === 1);
    older.answer(true);
    const second = await send();
    await eventually(() => newer.asked === 1);
    expect(await now(first)).toMatchObject({ status: 'sent', attempts: 2 });
    newer.answer(true);
    await until(second, 'delivered');
    expect(older.written).toEqual([first.id]);
    expect(newer.written).toEqual([first.id, second.id]);
  });

  it('sends nothing again over a newer link that another gateway is about to confirm, nor anything behind it', async () => {
    const older = attach(5, null);
    const first = await send();
    await eventually(() => older.asked === 1);
    await setEpoch(6);
    const elsewhere = start();
    const newer = fakeLink(agentUid, 6);
    newer.answer(true);
    elsewhere.dispatch.attach(newer);
    const second = await send();
    // By the time that another agent has been served there, this one has been looked at.
    const { uid: other } = await insertAgent(open.database, { epoch: 1 });
    const otherLink = fakeLink(other, 1);
    otherLink.answer(true);
    elsewhere.dispatch.attach(otherLink);
    await until(await stage.messages.send(everything, other, draft), 'delivered');
    older.answer(true);
    await until(first, 'delivered');
    await until(second, 'delivered');
    expect([older.written, newer.written]).toEqual([[first.id], [second.id]]);
  });

  it('leaves a message to the newer link when both are of one gateway', async () => {
    const older = attach(5, null);
    const message = await send();
    await eventually(() => older.asked === 1);
    await setEpoch(6);
    const newer = attach(6, true);
    stage.dispatch.detach(older);
    older.answer(false);
    await until(message, 'delivered');
    expect(newer.written).toEqual([message.id]);
  });

  it('sends nothing over a link that was detached', async () => {
    const link = attach();
    stage.dispatch.detach(link);
    const message = await send();
    await stage.messages.untilWritten(message, 4_000);
    expect(link.written).toEqual([]);
  });

  it('sends again what a gateway that died had sent, once the agent is back', async () => {
    const message = await send();
    await sql()`update message_queue set status = 'sent', attempts = 1, epoch = 4, sent_at = now() where id = ${message.id}`;
    const exhausted = await send({ maxRetries: 0 });
    await sql()`update message_queue set status = 'sent', attempts = 1, epoch = 4, sent_at = now() where id = ${exhausted.id}`;
    const link = attach();
    expect(await until(message, 'delivered')).toMatchObject({ attempts: 2 });
    expect(await now(exhausted)).toMatchObject({ status: 'failed', attempts: 1 });
    expect(link.written).toEqual([message.id]);
  });

  it.each([
    ['an earlier link, when this one had looked for what that one left', 4],
    ['this link itself, in a claim that was given up for lost', 5],
  ])('lets nothing overtake what has been claimed by %s', async (_, epoch) => {
    const link = attach();
    const before = await send();
    await until(before, 'delivered');
    link.canWrite = false;
    const message = await send();
    await sql()`
      update message_queue set status = 'sent', attempts = 1, epoch = ${epoch}, sent_at = now() - interval '1 minute'
      where id = ${message.id}`;
    link.canWrite = true;
    const behind = await send();
    await until(behind, 'delivered');
    expect(link.written).toEqual([before.id, message.id, behind.id]);
  });

  it('does not make a message wait for its next attempt when the agent comes with a new link', async () => {
    const message = await send();
    await sql()`update message_queue set attempts = 1, not_before = now() + interval '1 hour' where id = ${message.id}`;
    attach();
    await until(message, 'delivered');
  });

  it('expires what waits too long, and what was sent a minute after that', async () => {
    const [waiting, sent, justSent] = [await send(), await send(), await send()];
    await sql()`update message_queue set expires_at = now() where id = ${waiting.id}`;
    await sql()`update message_queue set status = 'sent', epoch = 4, expires_at = now() - interval '61 seconds' where id = ${sent.id}`;
    await sql()`update message_queue set status = 'sent', epoch = 4, expires_at = now() - interval '30 seconds' where id = ${justSent.id}`;
    expect(await until(waiting, 'expired')).toMatchObject({ failure: 'It could not be delivered in time' });
    await until(sent, 'expired');
    expect(await now(justSent)).toMatchObject({ status: 'sent' });
    const link = attach();
    await until(justSent, 'expired');
    expect(link.written).toEqual([]);
  });

  it('never sends a message after its time', async () => {
    await stage.dispatch.stop();
    const late = await send({ ttlSeconds: 1 });
    const soon = await send({ ttlSeconds: 60 });
    expect(late.expiresAt.getTime() - late.createdAt.getTime()).toBe(1_000);
    await sql()`update message_queue set expires_at = now() where id = ${late.id}`;
    const other = start();
    const link = fakeLink(agentUid, 5);
    link.answer(true);
    other.dispatch.attach(link);
    await until(soon, 'delivered');
    expect(link.written).toEqual([soon.id]);
  });

  it('cancels what waits and what was sent, and nothing that is final', async () => {
    const link = attach(5, null);
    const sent = await send();
    await eventually(() => link.asked === 1);
    const waiting = await send();
    expect(await stage.messages.cancel(everything, waiting.id)).toMatchObject({
      status: 'cancelled',
      failure: 'Cancelled before it was sent',
    });
    const cancelled = await stage.messages.cancel(everything, sent.id);
    expect(cancelled).toMatchObject({ status: 'cancelled', failure: expect.stringContaining('may have read it') });
    link.answer(true);
    const last = await send();
    await until(last, 'delivered');
    expect(link.written).toEqual([sent.id, last.id]);
    expect(await now(sent)).toMatchObject({ status: 'cancelled', deliveredAt: null });
    for (const id of [sent.id, waiting.id, last.id])
      await expect(stage.messages.cancel(everything, id)).rejects.toMatchObject({ code: 'MESSAGE_FINAL' });
    for (const [scope, id] of [
      [changerOf('acme'), last.id],
      [everything, 'nonsense'],
    ] as const)
      await expect(stage.messages.cancel(scope, id)).rejects.toMatchObject({ code: 'MESSAGE_NOT_FOUND' });
  });

  it('waits until a frame was written, or until it has waited long enough', async () => {
    const link = attach(5, null);
    const message = await send();
    expect(await stage.messages.untilWritten(message, 100_000)).toMatchObject({ id: message.id, status: 'sent' });
    link.answer(true);
    await until(message, 'delivered');
    expect(await stage.messages.untilWritten(message, 100_000)).toMatchObject({ status: 'delivered' });
    stage.dispatch.detach(link);
    const waiting = await send();
    expect(await stage.messages.untilWritten(waiting, 1_000)).toMatchObject({ status: 'pending' });
    const unfinished = stage.messages.untilWritten(waiting, 100_000);
    await stage.messages.cancel(everything, waiting.id);
    expect(await unfinished).toMatchObject({ status: 'cancelled' });
  });

  it('tells every change of a message, of an agent, and to nobody outside the scope', async () => {
    const ending = new AbortController();
    const follow = (scope: { orgId: string | null }, subject: Parameters<typeof stage.messages.updates>[1]) => {
      const seen: string[] = [];
      const reading = (async () => {
        for await (const { id, status } of stage.messages.updates(scope, subject, ending.signal))
          seen.push(`${id} ${status}`);
      })();
      return { seen, reading };
    };
    const message = await send();
    const followers = [
      follow(everything, { messageId: message.id }),
      follow(everything, { agentUid }),
      follow({ orgId: 'acme' }, { agentUid }),
    ];
    await eventually(() => followers.slice(0, 2).every(({ seen }) => seen.length === 1));
    attach();
    await until(message, 'delivered');
    const other = await send();
    await until(other, 'delivered');
    await eventually(() => followers[1]?.seen.length === 6);
    ending.abort();
    for (const { reading } of followers) await reading;
    const own = [`${message.id} pending`, `${message.id} sent`, `${message.id} delivered`];
    expect(followers[0]?.seen).toEqual(own);
    expect(followers[1]?.seen).toEqual([...own, `${other.id} pending`, `${other.id} sent`, `${other.id} delivered`]);
    expect(followers[2]?.seen).toEqual([]);
  });

  it('takes many agents in one go, each in its own order', async () => {
    const agents = await Promise.all(Array.from({ length: 30 }, () => insertAgent(open.database, { epoch: 1 })));
    const sent = new Map<string, string[]>();
    for (const { uid } of agents) {
      const ids: string[] = [];
      for (let index = 0; index < 12; index++) ids.push((await stage.messages.send(everything, uid, draft)).id);
      sent.set(uid, ids);
    }
    const links = agents.map(({ uid }) => fakeLink(uid, 1));
    for (const link of links) {
      link.answer(true);
      stage.dispatch.attach(link);
    }
    await eventually(() => links.every((link) => link.written.length === 12));
    for (const link of links) expect(link.written).toEqual(sent.get(link.agentUid));
  });

  it('writes down what is in hand before it stops, and sends nothing more', async () => {
    const link = attach(5, null);
    const message = await send();
    await eventually(() => link.asked === 1);
    const stopped = stage.stop();
    link.answer(true);
    await stopped;
    expect(await now(message)).toMatchObject({ status: 'delivered' });
    const next = await send();
    await stage.messages.untilWritten(next, 4_000);
    expect(link.written).toEqual([message.id]);
  });
});
