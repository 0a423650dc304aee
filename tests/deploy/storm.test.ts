import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { type DeployedAgents, startDeployedAgents } from './deployed-agents.ts';
import { type Deployment, startDeployment } from './deployment.ts';
import { hasHaproxy } from './haproxy.ts';

const canRun = hasHaproxy() && hasPostgres() && inject('redisUrl') !== null;
const patienceMs = 60_000;
const agentCount = 150;
/** A busy machine takes longer than an agent waits; whether they are let in is the question here. */
const timings = { dialTimeoutMs: 30_000, answerTimeoutMs: 30_000 };

// `bench/kill-storm.ts` does the same with thousands.
describe.skipIf(!canRun)('one of two gateways is killed with all agents on it', { timeout: 180_000 }, () => {
  let deployment: Deployment;
  let agents: DeployedAgents;
  let sql: postgres.Sql;

  beforeAll(async () => {
    deployment = await startDeployment({ gateways: 2 });
    sql = postgres(deployment.databaseUrl, { max: 1, onnotice: () => {} });
    const [, second] = deployment.gateways;
    await second?.end('SIGTERM');
    await balancerSees('ready/gateway-2', 'DOWN');
    const { agentUrl, balancer } = deployment;
    const { certificate } = balancer;
    agents = await startDeployedAgents({
      agentUrl,
      certificate,
      v1: agentCount,
      v2: 0,
      reportsPerSecond: 100,
      timings,
    });
    await eventually(() => agents.away.length === 0, patienceMs);
    second?.start();
    await second?.ready();
    await balancerSees('ready/gateway-2', 'UP');
  }, 360_000);

  afterAll(async () => {
    await agents?.close();
    await sql?.end();
    await deployment?.stop();
  });

  function balancerSees(server: string, state: string): Promise<unknown> {
    return eventually(async () => (await deployment.balancer.states()).get(server) === state, patienceMs);
  }

  async function ownersOf(): Promise<{ instance: string; count: number }[]> {
    return await sql<{ instance: string; count: number }[]>`
      select instance_id as instance, count(*)::int as count from agent_connections where is_active group by instance_id`;
  }

  it('and all are back on the other, which refuses none and strands none', async () => {
    const [first, second] = deployment.gateways;
    expect(await ownersOf()).toEqual([{ instance: first?.instanceId, count: agentCount }]);
    await first?.end('SIGKILL');
    await eventually(() => agents.away.length === agentCount, patienceMs);
    await eventually(() => agents.away.length === 0 || agents.stranded.length > 0, patienceMs);
    expect(agents.stranded).toEqual([]);
    const owned = { instance: second?.instanceId, count: agentCount };
    await eventually(async () => JSON.stringify(await ownersOf()) === JSON.stringify([owned]), patienceMs);
  });

  it('and what they report flows again', async () => {
    const since = agents.taken.length;
    await eventually(
      () => new Set(agents.taken.slice(since).map(({ agent }) => agent)).size === agentCount,
      patienceMs,
    );
    await agents.stopReporting();
    const reported = agents.taken.slice(since).map(({ messageId }) => messageId);
    await eventually(async () => {
      const [row] = await sql<{ count: number }[]>`
        select count(*)::int as count from events where message_id = any(${reported}::text[])`;
      return row?.count === reported.length;
    }, patienceMs);
  });
});
