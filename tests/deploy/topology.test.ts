import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { setTimeout as pause } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { deployedTimings, startV1Agent, type V1Agent } from '../../src/agent-client/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import {
  AgentDocument,
  type ConsumerClient,
  createConsumerClient,
  EventStreamDocument,
  GatewayDocument,
  MessageDocument,
  SendMessageDocument,
} from '../../src/consumer-client/client.ts';
import type { GatewayProcess } from '../faults/gateway-process.ts';
import { createPostgresCluster, type PostgresCluster, postgresPrograms } from '../faults/postgres-cluster.ts';
import { eventually } from '../support/eventually.ts';
import { type DeployedAgents, startDeployedAgents } from './deployed-agents.ts';
import { type Deployment, startDeployment } from './deployment.ts';
import { hasHaproxy } from './haproxy.ts';

// Consumers do not know the certificate that was made for this run; agents are given it and verify it.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';

const canRun = hasHaproxy() && postgresPrograms() !== null && inject('redisUrl') !== null;
const patienceMs = 60_000;
/** So that a drop costs a second instead of seven, and a busy machine does not count as a refusal. */
const timings = { redialDelayMs: 1_000, dialTimeoutMs: 30_000, answerTimeoutMs: 30_000 };

describe.skipIf(!canRun)('three gateways behind the balancer of deploy/', { timeout: 180_000 }, () => {
  let cluster: PostgresCluster;
  let deployment: Deployment;
  let agents: DeployedAgents;
  let consumer: ConsumerClient;

  beforeAll(async () => {
    cluster = await createPostgresCluster();
    deployment = await startDeployment({ gateways: 3, databaseUrl: cluster.url });
    const { url, token, agentUrl, balancer } = deployment;
    consumer = createConsumerClient({ url, token });
    const { certificate } = balancer;
    agents = await startDeployedAgents({ agentUrl, certificate, v1: 6, v2: 6, reportsPerSecond: 50, timings });
    await eventually(() => agents.away.length === 0, patienceMs);
  }, 240_000);

  afterAll(async () => {
    await agents?.close();
    await consumer?.close();
    await deployment?.stop();
    await cluster?.drop();
  });

  function allAreBack(): Promise<unknown> {
    return eventually(async () => {
      // A connection to the database may just have been lost.
      const { gateway } = await consumer.query(GatewayDocument).catch(() => ({ gateway: null }));
      return agents.away.length === 0 && gateway?.connectedAgents === agents.names.length;
    }, patienceMs);
  }

  it('serve agents of v1 and v2 over TLS, spread over all of them', async () => {
    const { gateway } = await consumer.query(GatewayDocument);
    expect(gateway.connectedAgents).toBe(12);
    expect([...gateway.instances].sort()).toEqual(deployment.gateways.map(({ instanceId }) => instanceId).sort());
    const owners = await Promise.all(agents.names.map((agentId) => consumer.query(AgentDocument, { agentId })));
    const spread = new Set(owners.map(({ agent }) => agent?.session?.gatewayInstance));
    expect(spread.size).toBe(3);
  });

  it('know the address of an agent behind the balancer, whatever the agent says it is', async () => {
    const agent = startAgent('elsewhere.example', {
      headers: { 'X-Forwarded-For': '192.0.2.1' },
      socket: { ca: deployment.balancer.certificate, localAddress: '127.0.0.2' },
    });
    await agent.ready({ timeoutMs: patienceMs });
    const answer = await fetch(`${deployment.url}/graphql`, {
      method: 'POST',
      headers: { authorization: `Bearer ${deployment.token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ query: '{ agent(agentId: "elsewhere.example") { session { remoteAddress } } }' }),
    });
    expect(await answer.json()).toEqual({ data: { agent: { session: { remoteAddress: '127.0.0.2' } } } });
    expect(answer.headers.get('strict-transport-security')).toBe('max-age=31536000');
    await agent.close();
    await allAreBack();
  });

  it('show a subscriber of any of them the events of all', async () => {
    const seen = new Set<string>();
    for await (const { events } of consumer.subscribe(EventStreamDocument, {})) {
      if (events.__typename !== 'StreamGap') seen.add(events.agentId);
      if (seen.size === agents.names.length) break;
    }
    expect([...seen].sort()).toEqual([...agents.names].sort());
  });

  it('bring a command that any of them accepts to an agent on any other', async () => {
    const sent = await Promise.all(
      deployment.gateways.flatMap(({ url }) => {
        const direct = createConsumerClient({ url, token: deployment.token });
        return agents.names.map(async (agentId) => {
          const input = { agentId, channel: 'TESTS', payload: { from: url } } as const;
          const { sendMessage } = await direct.mutate(SendMessageDocument, { input });
          return sendMessage.message.id;
        });
      }),
    );
    expect(sent).toHaveLength(36);
    for (const id of sent)
      await eventually(async () => {
        const { message } = await consumer.query(MessageDocument, { id });
        return message?.status === 'DELIVERED';
      }, patienceMs);
    for (const name of agents.names) expect(agents.commandsReadBy(name)).toHaveLength(3);
  });

  it('are reached over HTTP/2', async () => {
    const session = connectHttp2(deployment.url, { ca: deployment.balancer.certificate });
    const request = session.request({ ':path': '/healthz' });
    const [headers] = await once(request, 'response');
    expect(headers[':status']).toBe(200);
    request.close();
    session.close();
  });

  it('lose no agent while one of them is drained and comes back, and refuse none that dials meanwhile', async () => {
    const [gateway] = deployment.gateways;
    const diallers = startDiallers();
    const seen = watchStates('ready/gateway-1');
    await gateway?.end('SIGTERM');
    await eventually(async () => (await deployment.balancer.states()).get('ready/gateway-1') === 'DOWN', patienceMs);
    await comesBack(gateway, 'ready/gateway-1');
    expect(await diallers.stop()).toEqual([]);
    await allAreBack();
    expect(agents.stranded).toEqual([]);
    // Drained first: what is marked down has its connections ended.
    expect(await seen.stop()).toEqual(['UP', 'NOLB', 'DOWN', 'UP']);
  });

  it('lose no agent when one of them is killed, and refuse none that dials meanwhile', async () => {
    const [, gateway] = deployment.gateways;
    const diallers = startDiallers();
    await gateway?.end('SIGKILL');
    await allAreBack();
    await comesBack(gateway, 'ready/gateway-2');
    // An agent that was being answered by the killed one has lost its connection like everybody else there.
    const failures = await diallers.stop();
    expect(failures.filter((failure) => !failure.includes('LINK_CLOSED'))).toEqual([]);
    expect(agents.stranded).toEqual([]);
  });

  it('take agents also while the database is away, and answer them once it is back', async () => {
    await cluster.stop('fast');
    await eventually(
      async () =>
        [...(await deployment.balancer.states())].every(
          ([name, state]) => !name.startsWith('ready/gateway') || state === 'NOLB',
        ),
      patienceMs,
    );
    const agent = startAgent('patient.example', { timings: { ...deployedTimings.enveloped, answerTimeoutMs: 60_000 } });
    await agent.nextEvent('connected', { timeoutMs: patienceMs });
    await cluster.start();
    await agent.ready({ timeoutMs: patienceMs });
    expect(agent.failureCount).toBe(0);
    await agent.close();
  });

  function startAgent(agentId: string, options: Partial<Parameters<typeof startV1Agent>[0]> = {}): V1Agent {
    const { agentUrl, balancer } = deployment;
    return startV1Agent({
      url: agentUrl,
      agentId,
      suite: nativeCrypto,
      socket: { ca: balancer.certificate },
      ...options,
    });
  }

  async function comesBack(gateway: GatewayProcess | undefined, server: string): Promise<void> {
    gateway?.start();
    await gateway?.ready();
    await eventually(async () => (await deployment.balancer.states()).get(server) === 'UP', patienceMs);
  }

  /** One new agent after the other dials, some at once, and goes again; what they failed with is given when they are stopped. */
  function startDiallers() {
    const failures: string[] = [];
    let isStopped = false;
    async function dialAgainAndAgain(lane: number): Promise<void> {
      for (let number = 0; !isStopped; number++) {
        const agent = startAgent(`passer-by-${lane}-${number % 20}.example`);
        await agent.ready({ timeoutMs: patienceMs }).catch((error) => failures.push(String(error)));
        agent.terminate();
        await pause(5);
      }
    }
    const lanes = Promise.all(Array.from({ length: 4 }, (_, lane) => dialAgainAndAgain(lane)));
    return {
      async stop() {
        isStopped = true;
        await lanes;
        return failures;
      },
    };
  }

  /** The states that a server goes through. */
  function watchStates(server: string) {
    const seen: string[] = [];
    let isStopped = false;
    async function look(): Promise<void> {
      while (!isStopped) {
        // `DOWN 1/2`: on its way to another state.
        const [state = ''] = ((await deployment.balancer.states()).get(server) ?? '').split(' ');
        if (seen.at(-1) !== state) seen.push(state);
        await pause(20);
      }
    }
    const looking = look();
    return {
      async stop() {
        isStopped = true;
        await looking;
        return seen;
      },
    };
  }
});
