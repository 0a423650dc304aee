import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Bus } from '../../src/bus/bus.ts';
import { createMemoryBus } from '../../src/bus/memory-bus.ts';
import type { Message, MessageDraft } from '../../src/messages/message.ts';
import type { MessageSubject } from '../../src/messages/messages.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { insertAgent } from '../fleet/agents.ts';
import { eventually } from '../support/eventually.ts';
import { draft, everything, fakeLink, type MessagesStage, startMessages } from './stage.ts';

/** A bus that carries only what `passes` lets through, as one does whose messages are lost. */
function lossyBus(passes: (changed: readonly Message[]) => boolean): Bus {
  const bus = createMemoryBus(() => {});
  return {
    ...bus,
    publish(topic, message) {
      if (topic !== 'messages' || (Array.isArray(message) && passes(message))) bus.publish(topic, message);
    },
  };
}

describe.each(engines)('following messages on %s', (engine) => {
  let open: EngineDatabase;
  /** Where messages are sent and delivered. */
  let there: MessagesStage;
  /** Another gateway, which no hint of the first one reaches. */
  let here: MessagesStage;
  let agentUid: string;
  let ending: AbortController;
  const readings: Promise<void>[] = [];

  beforeAll(async () => {
    open = await openEngine(engine);
  });
  afterAll(() => open.close());
  beforeEach(async () => {
    ({ uid: agentUid } = await insertAgent(open.database, { epoch: 5 }));
    there = startMessages(open.database);
    here = startMessages(await open.another(), { isDispatching: false });
    ending = new AbortController();
  });
  afterEach(async () => {
    ending.abort();
    await Promise.all(readings.splice(0));
    for (const stage of [there, here]) await stage.stop();
  });

  const send = (given: Partial<MessageDraft> = {}) => there.messages.send(everything, agentUid, { ...draft, ...given });
  const attach = (isRead: boolean | null = true) => {
    const link = fakeLink(agentUid, 5);
    link.answer(isRead);
    there.dispatch.attach(link);
    return link;
  };

  /** What a reader has seen, message by message. */
  function follow(stage: MessagesStage, subject: MessageSubject, scope: { orgId: string | null } = everything) {
    const seen: Message[] = [];
    const reading = (async () => {
      for await (const message of stage.messages.updates(scope, subject, ending.signal)) seen.push(message);
    })();
    readings.push(reading);
    return {
      seen,
      statuses: (message: { id: string }) => seen.filter(({ id }) => id === message.id).map(({ status }) => status),
    };
  }

  it('starts with how a message stands, final or not, and ends where nothing can come any more', async () => {
    const waiting = await send();
    const cancelled = await there.messages.cancel(everything, (await send()).id);
    const followed = [follow(here, { messageId: waiting.id }), follow(here, { messageId: cancelled.id })];
    await eventually(() => followed.every(({ seen }) => seen.length === 1));
    expect(followed.map(({ seen }) => seen[0])).toEqual([waiting, cancelled]);
  });

  it('shows every change once and in order to a gateway that no hint reaches', async () => {
    const link = attach(null);
    const message = await send();
    const followed = follow(here, { messageId: message.id });
    await eventually(() => link.asked === 1);
    await eventually(() => followed.seen.at(-1)?.status === 'sent');
    link.answer(false);
    await eventually(() => followed.seen.at(-1)?.status === 'pending');
    link.answer(true);
    await open.database.sql`update message_queue set not_before = now() where id = ${message.id}`;
    await eventually(() => followed.seen.at(-1)?.status === 'delivered');
    const revisions = followed.seen.map(({ revision }) => revision);
    expect(revisions).toEqual(Array.from({ length: revisions.length }, (_, index) => (revisions[0] ?? 0) + index));
    expect(followed.seen.at(-1)).toEqual(await here.messages.find(everything, message.id));
  });

  it('shows messages that are new and over between two looks, each with all its changes', async () => {
    const first = await send();
    const followed = follow(here, { agentUid });
    const before = follow(there, { agentUid });
    await eventually(() => [followed, before].every(({ seen }) => seen.length === 1));
    attach();
    await eventually(() => followed.statuses(first).length === 3);
    const sent = await Promise.all(Array.from({ length: 20 }, () => send()));
    await eventually(() => sent.every((message) => followed.statuses(message).length === 3));
    await eventually(() => sent.every((message) => before.statuses(message).length === 3));
    for (const message of [first, ...sent])
      for (const reader of [followed, before])
        expect(reader.statuses(message)).toEqual(['pending', 'sent', 'delivered']);
  });

  it('repairs a lost hint with the next one, and tells how the message stood in between', async () => {
    const bus = lossyBus((changed) => changed.every(({ status }) => status !== 'sent'));
    const lossy = startMessages(open.database, { bus });
    const message = await send();
    const followed = follow(lossy, { messageId: message.id });
    await eventually(() => followed.seen.length === 1);
    const link = fakeLink(agentUid, 5);
    link.answer(true);
    lossy.dispatch.attach(link);
    await eventually(() => followed.seen.length === 3);
    const [, sent, delivered] = followed.seen;
    expect(sent).toMatchObject({ status: 'sent', attempts: 1, deliveredAt: null, sentAt: delivered?.sentAt });
    expect(delivered).toMatchObject({ status: 'delivered', deliveredAt: expect.any(Date) });
    expect(delivered?.history.map(({ status }) => status)).toEqual(['sent', 'delivered']);
    await lossy.stop();
  });

  it('repeats nothing that a hint has told already, and shows nothing of before to a late reader', async () => {
    const link = attach();
    const old = await send();
    await eventually(async () => (await there.messages.find(everything, old.id))?.status === 'delivered');
    link.canWrite = false;
    const message = await send();
    const late = follow(there, { agentUid });
    await eventually(() => late.seen.length === 1);
    link.canWrite = true;
    await eventually(() => late.statuses(message).length === 3);
    // What no hint has told shows that the reader has looked.
    const untold = await here.messages.send(everything, agentUid, draft);
    await eventually(() => late.statuses(untold).length === 3);
    expect(late.statuses(message)).toEqual(['pending', 'sent', 'delivered']);
    expect(late.statuses(old)).toEqual([]);
  });

  it('begins a broadcast with those of its messages that are not final, and shows the end of all of them', async () => {
    const others = await Promise.all(
      Array.from({ length: 4 }, () => insertAgent(open.database, { labels: [agentUid] })),
    );
    const { id } = await there.messages.broadcast(everything, draft, { labels: [agentUid] });
    const { items } = await there.messages.pageOfBroadcast(everything, id, undefined, { first: 10 });
    const [first, ...rest] = items;
    await there.messages.cancel(everything, first?.id ?? '');
    const followed = follow(here, { broadcastId: id });
    await eventually(() => followed.seen.length === others.length - 1);
    expect(followed.seen.map((message) => message.id)).toEqual(rest.map((message) => message.id));
    for (const message of rest) await there.messages.cancel(everything, message.id);
    await eventually(() => rest.every((message) => followed.statuses(message).at(-1) === 'cancelled'));
    expect(followed.seen).toHaveLength(2 * rest.length);
  });

  it('tells nothing of another organisation', async () => {
    const message = await send();
    const foreign = follow(here, { messageId: message.id }, { orgId: 'another' });
    const own = follow(here, { messageId: message.id });
    await eventually(() => own.seen.length === 1);
    await there.messages.cancel(everything, message.id);
    await eventually(() => own.seen.length === 2);
    expect(foreign.seen).toEqual([]);
  });

  it('lets go of a reader that does not read', async () => {
    const message = await send({ payload: 'x'.repeat(200_000) });
    const updates = there.messages
      .updates(everything, { messageId: message.id }, ending.signal)
      [Symbol.asyncIterator]();
    expect((await updates.next()).value).toEqual(message);
    const reading = updates.next();
    there.bus.publish('messages', [{ ...message, revision: 1 }]);
    await reading;
    for (let revision = 2; revision < 200; revision++)
      there.bus.publish('messages', [{ ...message, payload: 'x'.repeat(200_000), revision }]);
    await expect(updates.next()).rejects.toMatchObject({ code: 'SLOW_CONSUMER' });
  });
});
