import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import type { JsonObject, RawAgent } from '../agent-gateway/raw-agent.ts';
import { type Stage, startStage } from '../agent-gateway/stage.ts';
import { type CuttingProxy, startCuttingProxy } from '../db/cutting-proxy.ts';
import { eventually } from '../support/eventually.ts';
import { type RedisServer, startRedis } from '../support/redis-server.ts';

/** Two gateways with the same keys on one Postgres. */
export interface Pair {
  readonly one: Stage;
  readonly two: Stage;
  /** Their own Redis; null where they have none. */
  readonly redis: RedisServer | null;
  /** Between the second gateway and Postgres. */
  readonly proxy: CuttingProxy;
  /** What a subscription at a gateway brings, until it is ended. */
  watch(stage: Stage, query: string, variables?: JsonObject): { readonly seen: JsonObject[]; end(): void };
  stop(): Promise<void>;
}

export async function startPair(withRedis: boolean): Promise<Pair> {
  const dataDir = mkdtempSync(join(tmpdir(), 'aegis-pair-'));
  const redis = withRedis ? await startRedis() : null;
  const env = { DATA_DIR: dataDir, AGENT_ENROLLMENT: 'open', ...(redis ? { REDIS_URL: redis.url } : {}) };
  const one = await startStage({ env });
  const proxy = await startCuttingProxy(one.gateway.databaseUrl ?? '');
  const two = await startStage({ env, databaseUrl: proxy.databaseUrl });
  return {
    ...{ one, two, redis, proxy },
    watch(stage, query, variables = {}) {
      const client = createClient({
        url: stage.gateway.subscriptionUrl,
        webSocketImpl: WebSocket,
        connectionParams: { authorization: `Bearer ${stage.gateway.token}` },
        retryAttempts: 0,
      });
      const seen: JsonObject[] = [];
      client.subscribe<JsonObject>(
        { query, variables },
        { next: ({ data }) => void (data && seen.push(data)), error: () => {}, complete: () => {} },
      );
      return { seen, end: () => void client.dispose() };
    },
    async stop() {
      await two.stop();
      await proxy.close();
      await one.stop();
      await redis?.drop();
      rmSync(dataDir, { recursive: true });
    },
  };
}

/** The agent's next link, at any gateway. */
export async function comeBack(stage: Stage, agent: RawAgent): Promise<RawAgent> {
  const newer = await stage.dial({ agentId: agent.agentId, key: agent.key, headers: agent.reconnectHeaders() });
  newer.uid = agent.uid;
  newer.bootstrapToken = agent.bootstrapToken;
  const answer = await newer.authenticate();
  if (answer.success !== true) throw new Error(`the agent was refused: ${JSON.stringify(answer)}`);
  return newer;
}

/** How many commands have been written to an agent of v1. */
export function commandsOf(agent: RawAgent): number {
  return agent.received.filter((text) => text.includes('backend.policies')).length;
}

/** Sends a command to an agent from a gateway, and resolves when it is delivered. */
export async function deliver(from: Stage, ref: string): Promise<void> {
  const id = await from.send(ref);
  await eventually(async () => (await from.message(id)).status === 'DELIVERED', 30_000);
}
