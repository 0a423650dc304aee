import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import type { JsonObject, RawAgent } from '../agent-gateway/raw-agent.ts';
import type { Stage } from '../agent-gateway/stage.ts';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { hasRedisServer } from '../support/redis-server.ts';
import { comeBack, commandsOf, deliver, type Pair, startPair } from './pair.ts';

const longMs = 30_000;
const presenceOf = 'subscription ($ref: ID) { presence(agentId: $ref) { connected reason } }';
const presenceShape = z.object({ presence: z.object({ connected: z.boolean(), reason: z.string().nullable() }) });

async function instancesOf(stage: Stage): Promise<{ instance: string; instances: string[]; connectedAgents: number }> {
  const shape = z.object({ instance: z.string(), instances: z.array(z.string()), connectedAgents: z.number() });
  return shape.parse((await stage.ask('{ gateway { instance instances connectedAgents } }')).gateway);
}

async function warningsOf(stage: Stage): Promise<string[]> {
  const answer: unknown = await (await stage.gateway.fetch('/readyz')).json();
  return z.object({ warnings: z.array(z.string()).default([]) }).parse(answer).warnings;
}

describe.skipIf(!hasPostgres()).each([
  { name: 'with Redis', withRedis: true },
  { name: 'without Redis', withRedis: false },
])('two gateways on one Postgres, $name', ({ withRedis }) => {
  let pair: Pair;
  let one: Stage;
  let two: Stage;
  const watches: { end(): void }[] = [];
  beforeAll(async () => {
    if (withRedis && !hasRedisServer()) return;
    pair = await startPair(withRedis);
    ({ one, two } = pair);
  });
  afterEach(() => {
    for (const watch of watches.splice(0)) watch.end();
    for (const stage of [one, two]) stage?.endAgents();
  });
  afterAll(() => pair?.stop());

  /** What a subscription brings, of which something has come already, so that it is live. */
  function watch(stage: Stage, query: string, variables: JsonObject): { readonly seen: JsonObject[] } {
    const watching = pair.watch(stage, query, variables);
    watches.push(watching);
    return watching;
  }

  /** The presence of an agent as a gateway shows it, once the subscription is live. */
  function watchPresence(stage: Stage, agentId: string) {
    const { seen } = watch(stage, presenceOf, { ref: agentId });
    const states = () => seen.map((data) => presenceShape.parse(data).presence);
    return { states, connected: () => states().map(({ connected }) => connected) };
  }

  /** Resolves when the other gateway has told that an agent of the second is back, and so that the subscription is live. */
  async function goAndComeBack(agent: RawAgent, presence: ReturnType<typeof watchPresence>): Promise<RawAgent> {
    let current = agent;
    await eventually(async () => {
      current.terminate();
      await eventually(async () => !(await one.agent(agent.agentId))?.connected, longMs);
      current = await comeBack(two, current);
      return eventually(() => presence.connected().at(-1) === true, 3_000).catch(() => false);
    }, longMs);
    return current;
  }

  it.skipIf(withRedis && !hasRedisServer())('know of each other, and count the agents of both', async () => {
    const [first, second] = [await instancesOf(one), await instancesOf(two)];
    expect(first.instance).not.toBe(second.instance);
    expect(first.instances).toEqual([first.instance, second.instance].sort());
    expect(second.instances).toEqual(first.instances);
    await one.registered();
    await two.registered();
    await two.connectedV2();
    for (const stage of [one, two])
      await eventually(async () => (await instancesOf(stage)).connectedAgents === 3, longMs);
  });

  it.skipIf(withRedis && !hasRedisServer())('say so where no bus carries news between them', async () => {
    if (withRedis) {
      await eventually(async () => (await one.metric('aegis_bus_peers')) === 1, longMs);
      expect(await warningsOf(one)).toEqual([]);
    } else {
      await eventually(async () => (await warningsOf(one)).length === 1, longMs);
      expect(await warningsOf(one)).toEqual([expect.stringContaining('REDIS_URL')]);
    }
  });

  it.skipIf(withRedis && !hasRedisServer())(
    'bring a command that either accepts to an agent of the other',
    async () => {
      const [here, there] = [await one.registered(), await two.registered()];
      const v2 = await two.connectedV2();
      await Promise.all([deliver(one, there.agentId), deliver(two, here.agentId)]);
      expect([commandsOf(here), commandsOf(there)]).toEqual([1, 1]);
      const id = await one.send(v2.name);
      v2.acknowledge(
        (await eventually(() => v2.received.find(({ channel }) => channel.startsWith('backend')), longMs)).id,
      );
      await one.untilStatus(id, 'DELIVERED', longMs);
    },
  );

  it.skipIf(withRedis && !hasRedisServer())('spread a broadcast over the agents of both', async () => {
    const agents = [await one.registered(), await two.registered(), await two.registered()];
    await one.ask('mutation ($input: BroadcastInput!) { broadcast(input: $input) { broadcast { id } } }', {
      input: { channel: 'POLICIES', payload: {}, filter: { agentIds: agents.map(({ agentId }) => agentId) } },
    });
    await eventually(() => agents.every((agent) => commandsOf(agent) === 1), longMs);
  });

  it.skipIf(withRedis && !hasRedisServer())('show every transition of a message, wherever its agent is', async () => {
    const agent = await two.registered();
    const query = 'subscription ($ref: ID) { messageUpdates(agentId: $ref) { id status } }';
    const { seen } = watch(one, query, { ref: agent.agentId });
    const shape = z.object({ messageUpdates: z.object({ id: z.string(), status: z.string() }) });
    const statuses = () => seen.map((data) => shape.parse(data).messageUpdates);
    // The subscription is live once it has told of something.
    await eventually(async () => {
      await deliver(two, agent.agentId);
      return statuses().length > 0;
    }, longMs);
    const id = await two.send(agent.agentId);
    await eventually(() => statuses().some((update) => update.id === id && update.status === 'DELIVERED'), longMs);
    expect(statuses().flatMap((update) => (update.id === id ? update.status : []))).toEqual([
      'QUEUED',
      'SENT',
      'DELIVERED',
    ]);
  });

  it.skipIf(withRedis && !hasRedisServer())('show events that the other has stored, in their order', async () => {
    const agent = await two.registered();
    const query = 'subscription ($ref: ID) { events(agentId: $ref) { ... on AnomalyEvent { messageId } } }';
    const { seen } = watch(one, query, { ref: agent.agentId });
    const shape = z.object({ events: z.object({ messageId: z.string() }) });
    const ids = () => seen.map((data) => shape.parse(data).events.messageId);
    await eventually(() => {
      agent.report('anomalies', { severity: 'low' });
      return ids().length > 0;
    }, longMs);
    const sent = Array.from({ length: 20 }, () => agent.report('anomalies', { severity: 'low' }));
    await eventually(() => ids().includes(sent.at(-1) ?? ''), longMs);
    expect(ids().slice(-20)).toEqual(sent);
  });

  it.skipIf(withRedis && !hasRedisServer())('show who comes and goes at the other, and why', async () => {
    let agent = await two.registered();
    const presence = watchPresence(one, agent.agentId);
    agent = await goAndComeBack(agent, presence);
    const before = presence.states().length;
    agent.terminate();
    await eventually(() => presence.connected().at(-1) === false, longMs);
    expect(presence.states().slice(before)).toEqual([{ connected: false, reason: expect.any(String) }]);
  });

  it.skipIf(withRedis && !hasRedisServer())(
    "close an agent's older link with 4004 where a newer one comes to the other, without a change in presence",
    async () => {
      const older = await one.registered();
      const presence = watchPresence(one, older.agentId);
      const newer = await comeBack(two, older);
      expect(await older.closed).toMatchObject({ code: 4004 });
      expect((await one.agent(older.agentId))?.connected).toBe(true);
      await deliver(one, older.agentId);
      await deliver(two, older.agentId);
      expect([commandsOf(older), commandsOf(newer)]).toEqual([0, 2]);
      // On a machine so busy that a lease runs out, that is told, and nothing else.
      expect(presence.states().filter(({ connected, reason }) => !connected && !reason?.includes('lost'))).toEqual([]);
      // And back again, while the one before is still open.
      const newest = await comeBack(one, older);
      await deliver(two, older.agentId);
      expect([commandsOf(newer), commandsOf(newest)]).toEqual([2, 1]);
      expect(await newer.closed).toMatchObject({ code: 4004 });
    },
  );

  it.skipIf(withRedis && !hasRedisServer())(
    'leave one link of many that come to both at once, and that one works',
    async () => {
      const first = await one.registered();
      const rivals = await Promise.all(
        Array.from({ length: 6 }, (_, index) => comeBack(index % 2 === 0 ? one : two, first)),
      );
      const survivor = await eventually(() => {
        const open = rivals.filter((rival) => rival.isOpen);
        return open.length === 1 ? open[0] : null;
      }, longMs);
      await deliver(one, first.agentId);
      expect(commandsOf(survivor)).toBe(1);
      expect((await two.agent(first.agentId))?.connected).toBe(true);
    },
  );

  it.skipIf(withRedis && !hasRedisServer())(
    'disconnect an agent of the other for an operator, and leave the link alone with which it comes back',
    async () => {
      const agent = await two.registered();
      await one.ask('mutation ($ref: ID!) { disconnectAgent(agentId: $ref) { uid } }', { ref: agent.agentId });
      expect(await agent.closed).toMatchObject({ code: 4005 });
      const back = await comeBack(two, agent);
      await deliver(one, agent.agentId);
      await deliver(two, agent.agentId);
      expect(back.isOpen).toBe(true);
    },
  );

  it.skipIf(!withRedis || !hasRedisServer())(
    'lose nothing but time where Redis is emptied, stopped or killed',
    async () => {
      const [here, there] = [await one.registered(), await two.registered()];
      const bothWays = () => Promise.all([deliver(one, there.agentId), deliver(two, here.agentId)]);
      await pair.redis?.ask('flushall');
      await bothWays();
      pair.redis?.signal('SIGSTOP');
      await bothWays();
      pair.redis?.signal('SIGCONT');
      await bothWays();
      await pair.redis?.kill();
      await bothWays();
      await pair.redis?.start();
      await eventually(async () => (await one.metric('aegis_bus_peers')) === 1, longMs);
      await bothWays();
      expect([commandsOf(here), commandsOf(there)]).toEqual([5, 5]);
    },
  );

  it.skipIf(withRedis)(
    'show agents of one that has fallen silent as disconnected once its lease is over; awake again, it owns none of them',
    async () => {
      const [agent, other] = [await two.registered(), await two.registered()];
      const presence = watchPresence(one, agent.agentId);
      pair.proxy.stall();
      await eventually(async () => !(await one.agent(agent.agentId))?.connected, longMs);
      await eventually(() => presence.states().length > 0, longMs);
      expect(presence.states()).toEqual([{ connected: false, reason: 'its gateway was lost' }]);
      expect((await instancesOf(one)).instances).toHaveLength(1);
      const newer = await comeBack(one, agent);
      await deliver(one, agent.agentId);
      pair.proxy.goOn();
      expect(await agent.closed).toMatchObject({ code: 4004 });
      expect([commandsOf(agent), commandsOf(newer)]).toEqual([0, 1]);
      // It is read no more under a lease that has ended, so it comes back, too.
      other.report('anomalies', { severity: 'low' });
      await other.closed;
      await eventually(async () => (await instancesOf(one)).instances.length === 2, longMs);
    },
  );

  it.skipIf(withRedis && !hasRedisServer())('show the agents of one that stops as disconnected at once', async () => {
    const agent = await two.registered();
    const presence = watchPresence(one, agent.agentId);
    await goAndComeBack(agent, presence);
    await two.stop();
    expect((await one.agent(agent.agentId))?.connected).toBe(false);
    expect((await instancesOf(one)).instances).toHaveLength(1);
    await eventually(() => presence.connected().at(-1) === false, longMs);
  });
});
