import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createRetention } from '../../src/messages/retention.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { insertAgent, insertAgents } from '../fleet/agents.ts';
import { changerOf } from '../support/changer.ts';
import { eventually } from '../support/eventually.ts';
import { draft, everything, type MessagesStage, startMessages } from './stage.ts';

const retentionMs = 60_000;

describe('clearing away', () => {
  let open: EngineDatabase;
  let stage: MessagesStage;
  let orgId: string;

  beforeAll(async () => {
    open = await openEngine(engines.at(-1) ?? 'embedded');
    stage = startMessages(open.database, { isDispatching: false, retentionMs });
  });
  afterAll(async () => {
    await stage.stop();
    await open.close();
  });
  beforeEach(async () => {
    await sql()`truncate message_queue, broadcasts, broadcast_counts`;
    orgId = `org-${randomUUID()}`;
  });

  const sql = () => open.database.sql;
  const clearAway = () => createRetention(sql(), retentionMs).clearAway();
  const left = async () => (await sql()`select from message_queue`).count;
  /** Makes so many messages of an organisation with one broadcast. */
  async function messages(count: number) {
    await insertAgents(open.database, count, orgId);
    return stage.messages.broadcast(changerOf(orgId), draft, {});
  }
  const becameFinal = (ageMs: number, status = 'delivered') => sql()`
    update message_queue set status = ${status}, processed_at = now() - ${ageMs} * interval '1 millisecond'`;

  it.each(['delivered', 'failed', 'expired', 'cancelled'])(
    'takes a message that was %s for so long',
    async (status) => {
      await messages(1);
      await becameFinal(retentionMs - 10_000, status);
      await clearAway();
      expect(await left()).toBe(1);
      await becameFinal(retentionMs + 1, status);
      await clearAway();
      expect(await left()).toBe(0);
    },
  );

  it.each(['pending', 'sent'])('never takes one that is %s, however old', async (status) => {
    await messages(1);
    await sql()`update message_queue set status = ${status}, created_at = now() - interval '1 year'`;
    await clearAway();
    expect(await left()).toBe(1);
  });

  it('takes a thousand at a time, says when there is more, and shares with other gateways', async () => {
    await messages(2_500);
    await becameFinal(retentionMs + 1);
    expect(await clearAway()).toBe(true);
    expect(await left()).toBe(1_500);
    await Promise.all([clearAway(), clearAway()]);
    expect(await left()).toBeLessThanOrEqual(500);
    while (await clearAway());
    expect(await left()).toBe(0);
  });

  it('takes a broadcast when its last message has left, which is counted until then', async () => {
    const { id } = await messages(2);
    await becameFinal(retentionMs + 1);
    await sql()`update message_queue set processed_at = now() where id = (select id from message_queue limit 1)`;
    await sql()`update broadcasts set finished_at = now() - interval '1 year', state = 'finished'`;
    await clearAway();
    expect(await left()).toBe(1);
    expect((await stage.messages.progress(everything, [id])).get(id)).toMatchObject({ targets: 2, delivered: 2 });
    await becameFinal(retentionMs + 1);
    await clearAway();
    expect(await stage.messages.findBroadcast(everything, id)).toBeNull();
    expect((await sql()`select from broadcast_counts`).count).toBe(0);
  });

  it('keeps a broadcast without messages that is not over', async () => {
    const { id } = await stage.messages.broadcast(changerOf(orgId), draft, {});
    await clearAway();
    expect(await stage.messages.findBroadcast(everything, id)).not.toBeNull();
  });

  it('frees the idempotency key with the message', async () => {
    const { uid } = await insertAgent(open.database);
    const send = () => stage.messages.send(everything, uid, { ...draft, idempotencyKey: 'k' });
    const first = await send();
    await becameFinal(0);
    await clearAway();
    expect((await send()).id).toBe(first.id);
    await becameFinal(retentionMs + 1);
    await clearAway();
    expect((await send()).id).not.toBe(first.id);
  });

  it('goes on by itself', async () => {
    await messages(1_100);
    await becameFinal(retentionMs + 1);
    const running = startMessages(open.database, { retentionMs });
    await eventually(async () => (await left()) === 0, 30_000);
    await running.stop();
  });
});
