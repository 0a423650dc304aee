import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { V2Message } from '../../src/agent-gateway/wire/v2-message.ts';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { SteppedClock } from './clocks.ts';
import type { RawV2Agent } from './raw-v2-agent.ts';
import { type Stage, startStage } from './stage.ts';

const clock = new SteppedClock();
let stage: Stage;
beforeAll(async () => {
  stage = await startStage({ clock });
});
afterEach(() => stage.endAgents());
afterAll(() => stage.stop());

const isCommand = ({ channel }: V2Message) => channel.startsWith('backend.');
const commandsOf = (agent: RawV2Agent) => agent.received.filter(isCommand);

/** How many records of the agent have come. */
const recordsOf = (agent: RawV2Agent) => agent.frames.filter(({ isBinary }) => isBinary).length;

/** Lets time pass in small steps, so that leases and polls keep up. */
async function pass(seconds: number): Promise<void> {
  for (let passed = 0; passed < seconds; passed++) {
    clock.advance(1_000);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe('a command', () => {
  it('says how long it may still be carried out, and is an agent`s of its channel', async () => {
    const agent = await stage.connectedV2();
    await stage.send(agent.name, { channel: 'INVESTIGATIONS', payload: { n: [1.5] }, ttl: 60 });
    const command = await agent.next();
    expect(command).toMatchObject({ type: 'request', channel: 'backend.investigations', payload: { n: [1.5] } });
    expect(command.headers.expiresInMs).toBeGreaterThan(30_000);
    expect(command.headers.expiresInMs).toBeLessThanOrEqual(60_000);
  });

  it('is DELIVERED when the agent has acknowledged it, whatever becomes of the others in its record', async () => {
    const agent = await stage.connectedV2();
    const first = await stage.send(agent.name);
    const opening = await agent.next();
    const messageIds: string[] = [];
    for (let index = 0; index < 5; index++) messageIds.push(await stage.send(agent.name, { payload: { index } }));
    const before = recordsOf(agent);
    agent.acknowledge(opening.id);
    await eventually(() => commandsOf(agent).length === 6);
    expect(recordsOf(agent)).toBe(before + 1);
    const [, ...commands] = commandsOf(agent);
    expect(commands.map(({ payload }) => payload)).toEqual(messageIds.map((_, index) => ({ index })));
    agent.acknowledge(...[commands[3], commands[1]].map((command) => command?.id ?? ''));
    agent.say({
      ...{ type: 'error', channel: 'session', headers: { ackFor: [commands[2]?.id ?? ''] } },
      payload: { code: 'NOT_MINE', message: 'no such\u0000 policy', retryable: false },
    });
    agent.acknowledge(commands[0]?.id ?? '', commands[4]?.id ?? '');
    await stage.untilStatus(first, 'DELIVERED');
    for (const index of [0, 1, 3, 4]) await stage.untilStatus(messageIds[index] ?? '', 'DELIVERED');
    expect(await stage.untilStatus(messageIds[2] ?? '', 'FAILED')).toMatchObject({
      failure: 'The agent refused it: NOT_MINE: no such  policy',
    });
  });

  it('that is refused without a sound reason is FAILED as well', async () => {
    const agent = await stage.connectedV2();
    const messageId = await stage.send(agent.name);
    const { id } = await agent.next();
    agent.say({ type: 'error', channel: 'session', headers: { ackFor: [id] }, payload: null });
    expect(await stage.untilStatus(messageId, 'FAILED')).toMatchObject({
      failure: 'The agent refused it: without a reason',
    });
  });

  it('that the agent may be asked for again comes again', async () => {
    const agent = await stage.connectedV2();
    const messageId = await stage.send(agent.name);
    const { id } = await agent.next();
    agent.say({
      ...{ type: 'error', channel: 'session', headers: { ackFor: [id] } },
      payload: { code: 'BUSY', message: 'not now', retryable: true },
    });
    await eventually(async () => {
      await pass(1);
      return commandsOf(agent).length === 2;
    });
    expect(commandsOf(agent)[1]?.id).toBe(id);
    agent.acknowledge(id);
    expect(await stage.untilStatus(messageId, 'DELIVERED')).toMatchObject({ attempts: 2 });
  });

  it('that is not acknowledged in time comes again, and a late word for the first time counts as well', async () => {
    const agent = await stage.connectedV2();
    const messageId = await stage.send(agent.name);
    const { id } = await agent.next();
    await stage.untilStatus(messageId, 'SENT');
    clock.advance(29_999);
    await agent.untilAcknowledged([agent.say()]);
    expect(commandsOf(agent)).toHaveLength(1);
    await eventually(async () => {
      await pass(1);
      return commandsOf(agent).length === 2;
    });
    agent.acknowledge(id);
    expect(await stage.untilStatus(messageId, 'DELIVERED')).toMatchObject({ attempts: 2 });
  });

  it('that may not be sent twice fails where no word comes', async () => {
    const agent = await stage.connectedV2();
    const messageId = await stage.send(agent.name, { maxRetries: 0 });
    await agent.next();
    clock.advance(30_000);
    await stage.untilStatus(messageId, 'FAILED');
    expect(agent.isOpen).toBe(true);
  });

  it('that was on its way over a link that broke comes again over the next, with the same id', async () => {
    const agent = await stage.connectedV2();
    const messageId = await stage.send(agent.name);
    const { id } = await agent.next();
    await stage.untilStatus(messageId, 'SENT');
    agent.terminate();
    const again = await stage.connectedV2({ name: agent.name, key: agent.key });
    const repeated = await eventually(async () => {
      await pass(1);
      return commandsOf(again)[0];
    });
    expect(repeated.id).toBe(id);
    again.acknowledge(id);
    await stage.untilStatus(messageId, 'DELIVERED');
  });

  it('of 256 KiB fits into a record, and ten of them into as many', async () => {
    const agent = await stage.connectedV2();
    const text = 'x'.repeat(256 * 1024 - 64);
    const messageIds = await Promise.all(
      Array.from({ length: 10 }, () => stage.send(agent.name, { payload: { text } })),
    );
    await eventually(() => {
      const commands = commandsOf(agent);
      const unanswered = commands.slice(agent.received.length === 0 ? 0 : -10).map(({ id }) => id);
      if (unanswered.length > 0) agent.acknowledge(...unanswered);
      return commands.length >= 10;
    }, 20_000);
    for (const messageId of messageIds) await stage.untilStatus(messageId, 'DELIVERED');
    expect(agent.isOpen).toBe(true);
  });

  it('is one of many, of which so many are on their way at once and no more', async () => {
    const agent = await stage.connectedV2();
    const opening = await stage.send(agent.name);
    const { id } = await agent.next();
    await Promise.all(Array.from({ length: 80 }, () => stage.send(agent.name)));
    agent.acknowledge(id);
    await stage.untilStatus(opening, 'DELIVERED');
    await eventually(() => commandsOf(agent).length === 1 + 64);
    await agent.untilAcknowledged([agent.say()]);
    expect(commandsOf(agent)).toHaveLength(65);
    agent.acknowledge(...commandsOf(agent).map((command) => command.id));
    await eventually(() => commandsOf(agent).length === 81);
  });

  it.skipIf(!hasPostgres())('leaves the record that it went out in, with its nonce and signature', async () => {
    const agent = await stage.connectedV2();
    await stage.send(agent.name);
    const opening = await agent.next();
    const messageIds: string[] = [];
    for (let index = 0; index < 2; index++) messageIds.push(await stage.send(agent.name));
    agent.acknowledge(opening.id);
    await eventually(() => commandsOf(agent).length === 3);
    const frame = agent.frames.at(-1)?.data ?? Buffer.alloc(0);
    const ids = commandsOf(agent).map((command) => command.id);
    agent.acknowledge(...ids);
    for (const messageId of messageIds) await stage.untilStatus(messageId, 'DELIVERED');
    const rows = await stage.gateway.sql<{ encrypted_payload: string; nonce: string; signature: string }[]>`
      select encrypted_payload, nonce, signature from message_queue where id = any(${ids.slice(1)}::uuid[])
      order by encrypted_payload desc`;
    const nonce = Buffer.concat([Buffer.alloc(4), frame.subarray(5, 13)]).toString('base64');
    const first = rows.find((row) => !row.encrypted_payload.startsWith('in'));
    expect(first).toMatchObject({ encrypted_payload: frame.toString('base64'), nonce });
    expect(rows.find((row) => row !== first)).toMatchObject({
      encrypted_payload: `in the record of ${ids[1]}`,
      nonce,
      signature: first?.signature,
    });
    expect(Buffer.from(first?.signature ?? '', 'base64')).toHaveLength(64);
  });
});
