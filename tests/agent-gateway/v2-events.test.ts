import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { encodeBatch } from '../../src/agent-gateway/wire/v2-message.ts';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { type Stage, startStage } from './stage.ts';

let stage: Stage;
beforeAll(async () => {
  stage = await startStage();
});
afterEach(() => stage.endAgents());
afterAll(() => stage.stop());

const storedIds = async (name: string) => (await stage.events(name)).map(({ messageId }) => messageId);
const hourMs = 3_600_000;

/** Holds every statement that stores events until it is let go. */
async function holdingTheDatabase(work: () => Promise<void>): Promise<void> {
  await stage.gateway.sql.begin(async (tx) => {
    await tx`lock table recent_event_ids in access exclusive mode`;
    await work();
  });
}

const untilHeld = () =>
  eventually(async () => {
    const waiting = await stage.gateway.sql`
      select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`;
    return waiting.length > 0;
  });

describe('an event', () => {
  it.skipIf(!hasPostgres())('is acknowledged once it is durable, and not before', async () => {
    const agent = await stage.connectedV2();
    let ids: string[] = [];
    await holdingTheDatabase(async () => {
      ids = agent.send({}, {}, {});
      await untilHeld();
      // Another link's round trip: an acknowledgement would have come by now.
      await stage.connectedV2();
      expect(agent.acknowledged).toEqual([]);
      expect(await storedIds(agent.name)).toEqual([]);
    });
    await agent.untilAcknowledged(ids);
    expect(await storedIds(agent.name)).toEqual(ids);
  });

  it('that comes again is acknowledged again and stored once: in one record, in another, over another link', async () => {
    const agent = await stage.connectedV2();
    agent.send({ id: 'twice' }, { id: 'twice' });
    await eventually(() => agent.acknowledged.length === 2);
    agent.say({ id: 'twice' });
    await eventually(() => agent.acknowledged.length === 3);
    const again = await stage.connectedV2({ name: agent.name, key: agent.key });
    again.say({ id: 'twice' });
    await again.untilAcknowledged(['twice']);
    expect(await storedIds(agent.name)).toEqual(['twice']);
  });

  it('that comes again with another body is refused for good, and counted', async () => {
    const agent = await stage.connectedV2();
    const before = await stage.refused('FRAME_ID_REUSED');
    await agent.untilAcknowledged([agent.say({ id: 'reused', payload: 1 })]);
    agent.say({ id: 'reused', payload: 2 });
    expect(await agent.next()).toMatchObject({
      ...{ type: 'error', channel: 'session', headers: { ackFor: ['reused'] } },
      payload: { code: 'FRAME_ID_REUSED', retryable: false },
    });
    expect(await stage.refused('FRAME_ID_REUSED')).toBe(before + 1);
    expect((await stage.events(agent.name)).map(({ payload }) => payload)).toEqual([1]);
  });

  it('keeps its place among the others of its agent, whatever they share records with', async () => {
    const agent = await stage.connectedV2();
    const ids: string[] = [];
    for (let size = 1; size <= 40; size++) ids.push(...agent.send(...Array.from({ length: size }, () => ({}))));
    await agent.untilAcknowledged(ids, 20_000);
    expect((await storedIds(agent.name)).slice(-500)).toEqual(ids.slice(-500));
    // Acknowledged many in a record, not each by itself.
    expect(agent.received.filter(({ type }) => type === 'ack').length).toBeLessThan(ids.length / 4);
  });

  it('keeps every digit of its payload', async () => {
    const agent = await stage.connectedV2();
    const message = { ...agent.message({ id: 'digits' }), payloadText: '{"n":12345678901234567890.10,"b":[1e400]}' };
    agent.socket.send(agent.session.sealer.seal(encodeBatch([message])));
    await agent.untilAcknowledged(['digits']);
    if (!hasPostgres()) return;
    const [row] = await stage.gateway.sql<{ text: string }[]>`
      select payload::text as text from events where message_id = 'digits'`;
    expect(row?.text).toBe('{"n":12345678901234567890.10,"b":[1e400]}');
  });

  it.each([
    ['of no channel', 'FRAME_CHANNEL_UNKNOWN', 'agent.secrets'],
    ['of a channel to agents', 'FRAME_CHANNEL_UNKNOWN', 'backend.policies'],
    ["of another agent's channel", 'FRAME_CHANNEL_FOREIGN', 'agent.somebody-else.threats'],
  ])('%s is answered with an error, and the link goes on', async (_name, code, channel) => {
    const agent = await stage.connectedV2();
    const before = await stage.refused(code);
    const [refused, taken] = agent.send({ channel }, {});
    expect(await agent.next()).toMatchObject({
      ...{ type: 'error', headers: { ackFor: [refused] }, payload: { code, retryable: false } },
    });
    await agent.untilAcknowledged([taken ?? '']);
    expect(await stage.refused(code)).toBe(before + 1);
    expect(await storedIds(agent.name)).toEqual([taken]);
  });

  it('of a channel that an operator has switched off is answered with an error', async () => {
    const agent = await stage.connectedV2();
    await stage.ask(
      `mutation ($ref: ID!) { setAgentChannel(agentId: $ref, channel: "agent.threats", active: false) { uid } }`,
      { ref: agent.name },
    );
    await eventually(async () => {
      agent.say({ channel: 'agent.threats' });
      const answer = agent.received.find(({ type }) => type === 'error');
      return answer && z.object({ code: z.literal('FRAME_CHANNEL_CLOSED') }).parse(answer.payload);
    });
  });

  it('may name its agent by name or uid', async () => {
    const agent = await stage.connectedV2();
    const ids = agent.send(
      { channel: `agent.${agent.name}.threats` },
      { channel: `agent.${agent.uid}.logs` },
      { channel: `agent.${agent.uid.toUpperCase()}.status` },
    );
    await agent.untilAcknowledged(ids);
    expect((await stage.events(agent.name)).map(({ kind }) => kind)).toEqual(['THREATS', 'LOGS', 'STATUS']);
  });

  it.each([
    ['a day behind', -24 * hourMs, true],
    ['nearly a day ahead', 24 * hourMs - 60_000, true],
    ['in the year 2031', 6 * 365 * 24 * hourMs, false],
    ['in 1970', -Date.now(), false],
  ])('from a clock %s is taken as well', async (_name, shiftMs, isBelieved) => {
    const agent = await stage.connectedV2({ now: () => Math.max(0, Date.now() + shiftMs) });
    const sentMs = Date.now();
    await agent.untilAcknowledged([agent.say()]);
    const [event] = await stage.events(agent.name);
    const offMs = new Date(event?.occurredAt ?? 0).getTime() - sentMs - (isBelieved ? shiftMs : 0);
    expect(Math.abs(offMs)).toBeLessThan(30_000);
  });

  it('that answers a message is among its replies, also where it says that it failed', async () => {
    const agent = await stage.connectedV2();
    const messageId = await stage.send(agent.name);
    const command = await agent.next();
    agent.acknowledge(command.id);
    const answered = agent.say({
      ...{ type: 'response', channel: 'agent.policies', payload: { done: true }, headers: { replyTo: command.id } },
    });
    const failed = agent.say({
      ...{ type: 'error', channel: 'agent.policies', headers: { replyTo: command.id } },
      payload: { code: 'EXPIRED', message: 'too late', retryable: false },
    });
    await eventually(async () => {
      const { message } = await stage.ask('query ($id: ID!) { message(id: $id) { replies { messageId } } }', {
        id: messageId,
      });
      const { replies } = z.object({ replies: z.array(z.object({ messageId: z.string() })) }).parse(message);
      return replies.map((reply) => reply.messageId).join() === [answered, failed].join();
    });
    await agent.untilAcknowledged([answered]);
    expect(agent.acknowledged).not.toContain(failed);
  });

  it('of type heartbeat is stored, and not acknowledged', async () => {
    const agent = await stage.connectedV2();
    const beat = agent.say({ type: 'heartbeat', channel: 'agent.heartbeat', payload: {} });
    const refused = agent.say({ type: 'heartbeat', channel: 'agent.nothing', payload: {} });
    await agent.untilAcknowledged([agent.say()]);
    expect((await storedIds(agent.name))[0]).toBe(beat);
    expect([...agent.acknowledged, ...agent.received.flatMap(({ headers }) => headers.ackFor)]).not.toContain(beat);
    expect(agent.received.flatMap(({ headers }) => headers.ackFor)).not.toContain(refused);
  });
});

describe('the session channel', () => {
  it('acknowledges what it does not know, and answers nothing to acknowledgements of nothing', async () => {
    const agent = await stage.connectedV2();
    agent.acknowledge('never heard of');
    agent.say({ type: 'error', channel: 'session', headers: { ackFor: ['neither'] }, payload: 'no notice' });
    agent.say({ type: 'response', channel: 'session', payload: { op: 'rotate' }, id: 'odd' });
    const id = agent.say({ type: 'request', channel: 'session', payload: { op: 'dance' } });
    await agent.untilAcknowledged([id, 'odd']);
    expect(agent.received.filter(({ type }) => type !== 'ack')).toEqual([]);
  });
});

describe.skipIf(!hasPostgres())('an agent that sends more than the database takes', () => {
  it('is not read beyond what may wait, is not closed, and loses nothing', async () => {
    const agent = await stage.connectedV2();
    const { maxInFlightMessages, maxBatchMessages } = agent.grant.limits;
    const ids: string[] = [];
    await holdingTheDatabase(async () => {
      for (let record = 0; record < 16; record++)
        ids.push(...agent.send(...Array.from({ length: maxBatchMessages }, () => ({}))));
      await eventually(async () => (await stage.metric('aegis_events_waiting')) > maxInFlightMessages);
      await stage.connectedV2();
      // And what the socket had read by then.
      expect(await stage.metric('aegis_events_waiting')).toBeLessThan(maxInFlightMessages + 4 * maxBatchMessages);
      expect(agent.isOpen).toBe(true);
    });
    await agent.untilAcknowledged(ids, 20_000);
    expect(new Set(agent.acknowledged).size).toBe(ids.length);
  });

  it('leaves others alone: they are acknowledged and get their commands', async () => {
    const [flooding, other] = [await stage.connectedV2(), await stage.connectedV2()];
    for (let record = 0; record < 16; record++) flooding.send(...Array.from({ length: 256 }, () => ({})));
    await other.untilAcknowledged([other.say()]);
    const messageId = await stage.send(other.name);
    other.acknowledge((await other.next()).id);
    await stage.untilStatus(messageId, 'DELIVERED');
  });
});

describe.skipIf(!hasPostgres())('a database that goes away in the middle', () => {
  it('costs no event and no link', async () => {
    const agent = await stage.connectedV2();
    const ids: string[] = [];
    for (let round = 0; round < 20; round++) {
      ids.push(...agent.send(...Array.from({ length: 25 }, () => ({}))));
      if (round % 5 === 4)
        await stage.gateway.sql`
          select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid() and query like '%insert into recent_event_ids%'
            and query not like '%pg_terminate_backend%'`;
    }
    await agent.untilAcknowledged(ids, 20_000);
    expect(await storedIds(agent.name)).toEqual(ids);
    expect(agent.isOpen).toBe(true);
  });

  it('keeps a handshake waiting that has proved its key', async () => {
    const agent = await stage.dialV2();
    agent.socket.send(agent.initiator.m1);
    const m3 = await agent.answerToM2();
    await stage.gateway.sql.begin(async (tx) => {
      await tx`lock table agents in access exclusive mode`;
      agent.socket.send(m3);
      await untilHeld();
    });
    expect((await agent.granted()).enrollment).toBe('trusted');
  });
});
