import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { insertAgent } from '../fleet/agents.ts';
import { eventually } from '../support/eventually.ts';
import { draft, everything, fakeLink, type MessagesStage, startMessages } from './stage.ts';

describe.runIf(engines.includes('postgres'))('messages while the database fails', () => {
  let open: EngineDatabase;
  let stage: MessagesStage;
  let agentUid: string;

  beforeAll(async () => {
    open = await openEngine('postgres');
  });
  afterAll(() => open.close());
  beforeEach(async () => {
    ({ uid: agentUid } = await insertAgent(open.database));
    stage = startMessages(await open.another());
  });
  afterEach(() => stage.stop());

  const send = () => stage.messages.send(everything, agentUid, draft);
  const status = async (message: { id: string }) => (await stage.messages.find(everything, message.id))?.status;
  /** Makes every change of a message to `forbidden` fail until the returned function is called. */
  async function forbid(forbidden: string): Promise<() => Promise<unknown>> {
    await open.database.sql.unsafe(`
      create function refuse() returns trigger language plpgsql as
        $$ begin if new.status = '${forbidden}' then raise exception 'no space' using errcode = '53100'; end if; return new; end $$;
      create trigger refuse before update on message_queue for each row execute function refuse()`);
    return () => open.database.sql.unsafe('drop trigger refuse on message_queue; drop function refuse()');
  }

  it.each([
    ['delivered', true],
    ['pending', false],
  ])('keeps the outcome of a message until it can be written down: %s', async (outcome, isRead) => {
    const link = fakeLink(agentUid, 1);
    stage.dispatch.attach(link);
    const message = await send();
    await eventually(() => link.asked === 1);
    const allow = await forbid(outcome);
    link.answer(isRead);
    await eventually(() => stage.errors.length >= 2);
    const behind = await send();
    await stage.messages.untilWritten(behind, 3_000);
    expect(link.written).toEqual([message.id]);
    expect(await status(message)).toBe('sent');
    link.answer(true);
    await allow();
    await eventually(async () => (await status(behind)) === 'delivered');
    expect(link.written).toEqual(isRead ? [message.id, behind.id] : [message.id, message.id, behind.id]);
  });

  it('sends a message whose claim had failed, once, with one attempt counted', async () => {
    const allow = await forbid('sent');
    const link = fakeLink(agentUid, 1);
    link.answer(true);
    stage.dispatch.attach(link);
    const message = await send();
    await eventually(() => stage.errors.length >= 2);
    expect(link.written).toEqual([]);
    await allow();
    await eventually(async () => (await status(message)) === 'delivered');
    expect(link.written).toEqual([message.id]);
    expect((await stage.messages.find(everything, message.id))?.attempts).toBe(1);
  });

  it('takes a message back whose claim was made and never answered, and sends it once', async () => {
    const { database, proxy } = await open.throughProxy();
    const cut = startMessages(database);
    const link = fakeLink(agentUid, 1);
    link.answer(true);
    const message = await stage.messages.send(everything, agentUid, { ...draft, payload: { cut: 'here' } });
    const lost = proxy.cutAnswer('"here"');
    cut.dispatch.attach(link);
    await lost;
    await eventually(async () => (await status(message)) === 'delivered');
    expect(link.written).toEqual([message.id]);
    expect((await stage.messages.find(everything, message.id))?.attempts).toBe(1);
    await cut.stop();
  });

  it('loses nothing while its connections are cut again and again', async () => {
    const links: ReturnType<typeof fakeLink>[] = [];
    const sent: { id: string }[] = [];
    for (let index = 0; index < 5; index++) {
      const { uid } = await insertAgent(open.database);
      const link = fakeLink(uid, 1);
      link.answer(true);
      links.push(link);
      stage.dispatch.attach(link);
    }
    const writer = startMessages(open.database, { isDispatching: false });
    for (let round = 0; round < 12; round++) {
      for (const { agentUid: uid } of links) sent.push(await writer.messages.send(everything, uid, draft));
      stage.bus.publish('queued', { agentUids: links.map((link) => link.agentUid) });
      await open.database.sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid() and query like '%message_queue%'`;
    }
    await eventually(async () => {
      const rows = await open.database.sql`
        select 1 from message_queue where status <> 'delivered' and id = any(${sent.map(({ id }) => id)}::uuid[])`;
      return rows.length === 0;
    }, 30_000);
    expect(new Set(links.flatMap((link) => link.written)).size).toBe(sent.length);
  });

  it('takes over what an earlier link left although the database failed at first', async () => {
    const message = await send();
    await open.database.sql`update message_queue set status = 'sent', attempts = 1, epoch = 0 where id = ${message.id}`;
    const allow = await forbid('pending');
    const link = fakeLink(agentUid, 1);
    link.answer(true);
    stage.dispatch.attach(link);
    await eventually(() => stage.errors.length >= 2);
    await allow();
    await eventually(async () => (await status(message)) === 'delivered');
    expect(link.written).toEqual([message.id]);
  });

  it.each([
    ['an earlier link', 0],
    ['this link itself, in a claim that was given up for lost', 1],
  ])('lets nothing overtake what is being claimed meanwhile by %s', async (_, epoch) => {
    const link = fakeLink(agentUid, 1);
    link.answer(true);
    stage.dispatch.attach(link);
    const before = await send();
    await eventually(async () => (await status(before)) === 'delivered');
    link.canWrite = false;
    const [message, behind, last] = [await send(), await send(), await send()];
    await open.database.sql.begin(async (tx) => {
      await tx`
        update message_queue set status = 'sent', attempts = attempts + 1, epoch = ${epoch}, sent_at = now() - interval '1 minute'
        where id = ${behind.id}`;
      link.canWrite = true;
      stage.bus.publish('queued', { agentUids: [agentUid] });
      await eventually(async () => {
        const [waiting] = await tx`
          select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
        return waiting !== undefined;
      });
    });
    await eventually(async () => (await status(last)) === 'delivered');
    expect(link.written).toEqual([before, message, behind, last].map(({ id }) => id));
    expect((await stage.messages.find(everything, last.id))?.attempts).toBe(1);
  });

  it('tells an accepted message as it knows it when the database fails afterwards', async () => {
    const message = await send();
    await open.database.sql`alter table message_queue rename to message_queue_away`;
    try {
      expect(await stage.messages.untilWritten(message, 1_000)).toEqual(message);
    } finally {
      await open.database.sql`alter table message_queue_away rename to message_queue`;
    }
  });
});
