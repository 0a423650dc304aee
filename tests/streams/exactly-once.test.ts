import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import type { V1Agent } from '../../src/agent-client/index.ts';
import { type SeededRandom, seededRandom } from '../../src/agent-client/seeded-random.ts';
import { type ConsumerStage, startConsumerStage } from '../schema/consumer-stage.ts';
import { createTestDatabase, hasPostgres, type TestDatabase } from '../support/databases.ts';
import { openEventSource } from './event-source.ts';
import { openRawSubscriber } from './raw-subscriber.ts';

/** Two gateways on one database, each with writers of its own that commit as they please, and a reader that is cut off at random. */

const events = 10_000;
const agentsPerGateway = 4;
const leastCuts = 100;

let database: TestDatabase;
const stages: ConsumerStage[] = [];
const agents: V1Agent[] = [];

beforeAll(async () => {
  if (!hasPostgres()) return;
  database = await createTestDatabase();
  const databaseUrl = database.databaseUrl ?? '';
  for (let number = 0; number < 2; number++) stages.push(await startConsumerStage({ databaseUrl }));
  for (const [index, stage] of stages.entries())
    for (let number = 0; number < agentsPerGateway; number++)
      agents.push(await stage.connect(`agent-${index}-${number}`));
});
afterAll(async () => {
  for (const stage of stages) await stage.stop();
  await database?.drop();
});

interface SeenEvent {
  readonly cursor: string;
  readonly messageId: string;
}

const query =
  'subscription ($after: String) { events(kinds: [LOGS], after: $after) { ... on Event { cursor messageId } } }';
const seenSchema = z.object({
  data: z.object({ events: z.object({ cursor: z.string(), messageId: z.string() }) }),
});

/** Takes up to `count` events behind the cursor, then drops the connection without a word, whatever is still in it. */
type Read = (stage: ConsumerStage, after: string | null, count: number) => Promise<SeenEvent[]>;

const readBySocket: Read = async ({ gateway }, after, count) => {
  const subscriber = await openRawSubscriber(gateway.url, gateway.token);
  const done = new Promise<void>((resolve) => {
    subscriber.socket.on('message', () => {
      if (subscriber.messages.length >= count) resolve();
    });
  });
  subscriber.subscribe('1', query, { after });
  await done;
  subscriber.socket.terminate();
  return subscriber.messages.slice(0, count).map(({ payload }) => seenSchema.parse(payload).data.events);
};

const readByEventStream: Read = async ({ gateway }, after, count) => {
  const { url, token } = gateway;
  const reader = await openEventSource({ url, token, query, ...(after === null ? {} : { lastEventId: after }) });
  const taken: SeenEvent[] = [];
  while (taken.length < count) {
    const { value } = await reader.next();
    const event = seenSchema.parse(JSON.parse(value.data)).data.events;
    expect(value.id).toBe(event.cursor);
    taken.push(event);
  }
  reader.cut();
  return taken;
};

/** Over both transports in turn, and either gateway. */
async function readAll(random: SeededRandom, from: string): Promise<{ seen: SeenEvent[]; cuts: number }> {
  const seen: SeenEvent[] = [];
  let cuts = 0;
  while (seen.length < events) {
    const stage = stages[random.integer(0, 1)];
    if (!stage) throw new Error('there are two gateways');
    const count = Math.min(random.integer(1, 160), events - seen.length);
    const read = cuts % 2 === 0 ? readBySocket : readByEventStream;
    seen.push(...(await read(stage, seen.at(-1)?.cursor ?? from, count)));
    cuts++;
  }
  return { seen, cuts };
}

/** In bursts of random length with breaths between them, so that the two gateways overtake each other all the time. */
async function write(agent: V1Agent, random: SeededRandom, count: number): Promise<string[]> {
  const sent: string[] = [];
  while (sent.length < count) {
    const burst = Math.min(random.integer(1, 10), count - sent.length);
    for (let left = burst; left > 0; left--) sent.push((await agent.sendEvent('logs', { n: sent.length })).message.id);
    await new Promise((resolve) => setTimeout(resolve, random.integer(5, 40)));
  }
  return sent;
}

async function everyEvent(): Promise<SeenEvent[]> {
  const pageSchema = z.object({
    events: z.object({
      nodes: z.array(z.object({ cursor: z.string(), messageId: z.string() })),
      pageInfo: z.object({ hasNextPage: z.boolean(), endCursor: z.string().nullable() }),
    }),
  });
  const all: SeenEvent[] = [];
  for (let after: string | null = null; ; ) {
    const page: unknown = await stages[0]?.ask(
      `query ($after: String) { events(kinds: [LOGS], first: 500, after: $after) {
        nodes { cursor messageId } pageInfo { hasNextPage endCursor } } }`,
      { after },
    );
    const { nodes, pageInfo } = pageSchema.parse(page).events;
    all.push(...nodes);
    if (!pageInfo.hasNextPage) return all;
    after = pageInfo.endCursor;
  }
}

describe.skipIf(!hasPostgres())('while two gateways write 10,000 events', () => {
  test('a subscriber that is cut off a hundred times sees each exactly once and in order', async () => {
    const seed = Number(process.env.STREAM_SEED ?? 20261124);
    const random = seededRandom(seed);
    const [stage] = stages;
    const from = z.object({ eventCursor: z.string() }).parse(await stage?.ask('{ eventCursor }')).eventCursor;
    const reading = readAll(random, from);
    const writing = agents.map((agent, index) => write(agent, seededRandom(seed + index), events / agents.length));
    const [{ seen, cuts }, ...sent] = await Promise.all([reading, ...writing]);

    expect(seen.length, `seed ${seed}`).toBe(events);
    expect(cuts).toBeGreaterThanOrEqual(leastCuts);
    // All that was sent, nothing twice, in the one order in which pages have it, and each agent's in its own.
    expect(new Set(seen.map(({ messageId }) => messageId))).toEqual(new Set(sent.flat()));
    expect(seen).toEqual(await everyEvent());
    const writerOf = new Map(sent.flatMap((ids, index) => ids.map((id) => [id, index] as const)));
    for (const [index, ids] of sent.entries())
      expect(
        seen.filter(({ messageId }) => writerOf.get(messageId) === index).map(({ messageId }) => messageId),
      ).toEqual(ids);
    // The two did write at the same time.
    const gateways = seen.map(({ messageId }) => Math.floor((writerOf.get(messageId) ?? 0) / agentsPerGateway));
    expect(gateways.filter((gateway, index) => index > 0 && gateway !== gateways[index - 1]).length).toBeGreaterThan(
      100,
    );
  }, 60_000);
});
