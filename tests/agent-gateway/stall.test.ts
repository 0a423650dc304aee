import { setImmediate as turn } from 'node:timers/promises';
import postgres from 'postgres';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startV1Agent, type V1Agent } from '../../src/agent-client/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { type CuttingProxy, startCuttingProxy } from '../db/cutting-proxy.ts';
import { createTestDatabase, hasPostgres, type TestDatabase } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { SteppedClock } from './clocks.ts';
import { type Stage, startStage } from './stage.ts';

const agentCount = 4;
/** Longer than an agent waits for anything, and than its clock may be wrong. */
const stallMs = 8 * 60_000;

/** An agent's deadlines, a gateway's health checks and all else that waits runs on one clock, stepped by the test. */
describe.skipIf(!hasPostgres())('a gateway whose database does not answer', () => {
  let database: TestDatabase;
  let proxy: CuttingProxy;
  let clock: SteppedClock;
  let stage: Stage;
  let agents: V1Agent[];
  const sent = new Map<string, string[]>();
  let isStopped: boolean;

  beforeEach(async () => {
    database = await createTestDatabase();
    proxy = await startCuttingProxy(database.databaseUrl ?? '');
    clock = new SteppedClock();
    stage = await startStage({ databaseUrl: proxy.databaseUrl, clock });
    isStopped = false;
    sent.clear();
    agents = Array.from({ length: agentCount }, (_none, number) =>
      startV1Agent({
        url: stage.gateway.agentUrl,
        agentId: `host-${number}.example.net`,
        suite: nativeCrypto,
        clock: { nowMs: () => clock.now(), schedule: (delayMs, action) => clock.after(delayMs, action) },
      }),
    );
    await Promise.all(agents.map((agent) => agent.ready()));
  });
  afterEach(async () => {
    proxy.goOn();
    for (const agent of agents) agent.terminate();
    const stopped = isStopped ? Promise.resolve() : stage.stop();
    await steppingUntil(stopped);
    await proxy.close();
    await database.drop();
  });

  /** Lets time pass for everyone, and what is under way meanwhile come to its end. */
  async function pass(ms: number): Promise<void> {
    for (let passedMs = 0; passedMs < ms; passedMs += 1_000) {
      clock.advance(1_000);
      await new Promise((resolve) => setTimeout(resolve, 4));
    }
  }

  async function steppingUntil(done: Promise<unknown>): Promise<void> {
    let isDone = false;
    const settled = done.finally(() => {
      isDone = true;
    });
    while (!isDone) {
      clock.advance(250);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await settled;
  }

  async function send(agent: V1Agent, count: number): Promise<void> {
    const ids = sent.get(agent.agentId) ?? [];
    sent.set(agent.agentId, ids);
    const text = 'x'.repeat(2_000);
    for (let number = 0; number < count; number++) {
      // Not waited for: what cannot be written stays with the agent.
      const written = agent.sendEvent('anomalies', { number: ids.length, text });
      written.catch(() => {});
      ids.push(String(ids.length));
    }
    await turn();
  }

  const waiting = () => stage.metric('aegis_events_waiting');
  const numbers = async (sql: postgres.Sql, agent: V1Agent) => {
    const rows = await sql<{ number: string }[]>`
      select payload->>'number' as number from events where agent_name = ${agent.agentId} and kind = 'anomalies' order by position`;
    return rows.map(({ number }) => number);
  };

  it('stops reading, stays in touch with every agent, says so, and goes on where it was', async () => {
    const direct = postgres(database.databaseUrl ?? '', { max: 1, onnotice: () => {} });
    try {
      for (const agent of agents) await send(agent, 10);
      await eventually(
        async () => (await Promise.all(agents.map((agent) => numbers(direct, agent)))).flat().length === 40,
      );
      expect((await stage.gateway.fetch('/readyz')).status).toBe(200);

      proxy.stall();
      for (let round = 0; round < 10; round++) for (const agent of agents) await send(agent, 500);
      await eventually(async () => (await waiting()) > agentCount * 256, 20_000);
      // Sockets are not read: what agents send stays with them.
      await eventually(() => agents.every((agent) => agent.bufferedBytes > 0));
      await pass(stallMs);
      const bound = await waiting();
      // 256 of each agent, and what had been read from each socket at once.
      expect(bound).toBeLessThan(agentCount * (256 + 500));
      const readiness = await stage.gateway.fetch('/readyz');
      expect([readiness.status, await readiness.json()]).toMatchObject([
        503,
        { checks: { database: 'does not answer' } },
      ]);
      for (const agent of agents) expect([agent.state, agent.linkCount, agent.isStranded]).toEqual(['ready', 1, false]);

      proxy.goOn();
      await eventually(async () => {
        await pass(1_000);
        const counts = await Promise.all(agents.map(async (agent) => (await numbers(direct, agent)).length));
        return counts.every((count) => count >= 5_010);
      }, 30_000);
      for (const agent of agents) {
        expect(await numbers(direct, agent)).toEqual(sent.get(agent.agentId));
        expect([agent.linkCount, agent.failureCount]).toEqual([1, 0]);
      }
      await eventually(async () => (await stage.gateway.fetch('/readyz')).status === 200);
      expect(await waiting()).toBe(0);
    } finally {
      await direct.end();
    }
  }, 60_000);

  it('stops within its time, with events and departures still to write', async () => {
    await send(agents[0] ?? expect.fail(), 10);
    proxy.stall();
    for (const agent of agents) await send(agent, 50);
    await eventually(async () => (await waiting()) > 0);
    const beganMs = clock.now();
    isStopped = true;
    await steppingUntil(stage.stop());
    expect(clock.now() - beganMs).toBeLessThan(9_500);
  });
});
