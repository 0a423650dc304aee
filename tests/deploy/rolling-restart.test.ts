import { setTimeout as pause } from 'node:timers/promises';
import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import {
  type ConsumerClient,
  createConsumerClient,
  EventCursorDocument,
  EventStreamDocument,
  SendMessageDocument,
} from '../../src/consumer-client/client.ts';
import { idOf } from '../../src/schema/node-ids.ts';
import { hasPostgres } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { type DeployedAgents, startDeployedAgents } from './deployed-agents.ts';
import { type Deployment, startDeployment } from './deployment.ts';
import { hasHaproxy } from './haproxy.ts';

// Consumers do not know the certificate that was made for this run; agents are given it and verify it.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';

const canRun = hasHaproxy() && hasPostgres() && inject('redisUrl') !== null;
const patienceMs = 60_000;
const betweenCommandsMs = 100;
/** A busy machine takes longer than an agent waits; whether they are let in is the question here. */
const timings = { dialTimeoutMs: 30_000, answerTimeoutMs: 30_000 };

/** What a subscriber was shown: when, and in which order. */
interface Shown {
  readonly messageId: string;
  readonly atMs: number;
}

describe.skipIf(!canRun)(
  'three gateways that are restarted one after the other, under load',
  { timeout: 240_000 },
  () => {
    let deployment: Deployment;
    let agents: DeployedAgents;
    let consumer: ConsumerClient;
    let sql: postgres.Sql;
    const shown: Shown[] = [];
    const sent: { readonly agent: string; readonly messageId: string }[] = [];
    let answersLost = 0;

    beforeAll(async () => {
      deployment = await startDeployment({ gateways: 3 });
      const { url, token, agentUrl, balancer } = deployment;
      sql = postgres(deployment.databaseUrl, { max: 1, onnotice: () => {} });
      consumer = createConsumerClient({ url, token, resume: { firstDelayMs: 50, maxDelayMs: 500 } });
      const { certificate } = balancer;
      agents = await startDeployedAgents({ agentUrl, certificate, v1: 10, v2: 10, reportsPerSecond: 100, timings });
      await eventually(() => agents.away.length === 0, patienceMs);
      await restartAll();
    }, 480_000);

    afterAll(async () => {
      process.stdout.write(summary());
      await agents?.close();
      await consumer?.close();
      await sql?.end();
      await deployment?.stop();
    });

    /** Under load from all sides; returns when all is at rest again. */
    async function restartAll(): Promise<void> {
      const { eventCursor: after } = await consumer.query(EventCursorDocument);
      void watch(after);
      const sending = startSending();
      for (const [index, gateway] of deployment.gateways.entries()) {
        await gateway.end('SIGTERM');
        gateway.start();
        await gateway.ready();
        await eventually(
          async () => (await deployment.balancer.states()).get(`ready/gateway-${index + 1}`) === 'UP',
          patienceMs,
        );
      }
      await eventually(() => agents.away.length === 0, patienceMs);
      await sending.stop();
      await agents.stopReporting();
      await eventually(async () => {
        const [row] = await sql<{ open: number }[]>`
        select count(*)::int as open from message_queue where status in ('pending', 'sent')`;
        return row?.open === 0;
      }, patienceMs);
      await eventually(async () => shown.length >= (await storedIds()).length, patienceMs).catch(() => {});
    }

    async function watch(after: string): Promise<void> {
      for await (const { events } of consumer.subscribe(EventStreamDocument, { after, kinds: ['ANOMALIES'] }))
        if (events.__typename !== 'StreamGap') shown.push({ messageId: events.messageId, atMs: performance.now() });
    }

    function startSending() {
      let isStopped = false;
      async function send(): Promise<void> {
        for (let number = 0; !isStopped; number++) {
          const agent = agents.names[number % agents.names.length] ?? '';
          await sendOne(agent, `command-${number}`);
          await pause(betweenCommandsMs);
        }
      }
      const sending = send();
      return {
        async stop() {
          isStopped = true;
          await sending;
        },
      };
    }

    /** Asks again, with the same key, where an answer is lost. */
    async function sendOne(agentId: string, idempotencyKey: string): Promise<void> {
      const input = { agentId, channel: 'TESTS', payload: {}, ttl: 300, idempotencyKey } as const;
      for (;;) {
        try {
          const { sendMessage } = await consumer.mutate(SendMessageDocument, { input });
          sent.push({ agent: agentId, messageId: idOf('Message', sendMessage.message.id) ?? '' });
          return;
        } catch {
          answersLost++;
          await pause(betweenCommandsMs);
        }
      }
    }

    /** In the order of the stream. */
    async function storedIds(): Promise<string[]> {
      const rows = await sql<{ id: string }[]>`
      select message_id as id from events where kind = 'anomalies' and position > 0 order by position`;
      return rows.map(({ id }) => id);
    }

    it('strand no agent', () => {
      expect([agents.stranded, agents.away]).toEqual([[], []]);
    });

    it('end by themselves alone, and not once by a fault', () => {
      expect(deployment.gateways.flatMap(({ crashes }) => crashes)).toEqual([]);
    });

    it('have stored every event that its agent knows to be taken, once', async () => {
      const stored = await storedIds();
      const once = new Set(stored);
      expect(once.size).toBe(stored.length);
      expect(agents.taken.filter(({ messageId }) => !once.has(messageId))).toEqual([]);
      expect(agents.taken.length).toBeGreaterThan(0);
    });

    it('show a subscriber every event once, in the order of the stream', async () => {
      const stored = await storedIds();
      // What was stored before it began.
      const [first] = shown;
      expect(shown.map(({ messageId }) => messageId)).toEqual(stored.slice(stored.indexOf(first?.messageId ?? '')));
    });

    it('deliver every command, and each is read once', async () => {
      const rows = await sql<{ status: string; count: number }[]>`
      select status, count(*)::int as count from message_queue group by status`;
      expect(rows.map(({ status, count }) => ({ status, count }))).toEqual([
        { status: 'delivered', count: sent.length },
      ]);
      const read = agents.names.flatMap((agent) =>
        agents.commandsReadBy(agent).map((messageId) => `${messageId} by ${agent}`),
      );
      expect(read.sort()).toEqual(sent.map(({ agent, messageId }) => `${messageId} by ${agent}`).sort());
    });

    /** Times are for people: no test holds a busy machine to them. */
    function summary(): string {
      const shownAtMs = new Map(shown.map(({ messageId, atMs }) => [messageId, atMs]));
      const latencies = (those: DeployedAgents['taken']) =>
        those
          .map(({ messageId, reportedAtMs }) => (shownAtMs.get(messageId) ?? Number.NaN) - reportedAtMs)
          .filter((latencyMs) => !Number.isNaN(latencyMs))
          .sort((a, b) => a - b);
      const quantile = (sorted: readonly number[], part: number) =>
        Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN);
      const told = (name: string, those: DeployedAgents['taken']) => {
        const sorted = latencies(those);
        return `  ${name} ${sorted.length}, until shown: p50 ${quantile(sorted, 0.5)} ms, p99 ${quantile(sorted, 0.99)} ms, most ${quantile(sorted, 1)} ms`;
      };
      return [
        'Rolling restart of three gateways',
        told(
          'events of agents with a link',
          agents.taken.filter(({ wasConnected }) => wasConnected),
        ),
        told('events of all agents         ', agents.taken),
        `  commands ${sent.length}, answers lost ${answersLost}; links ${agents.links}; longest away ${(agents.longestAwayMs / 1_000).toFixed(1)} s`,
        ...agents.stranded.map((agent) => `  stranded ${agent}`),
        '',
      ].join('\n');
    }
  },
);
