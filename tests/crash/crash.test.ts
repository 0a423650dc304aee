import { randomInt } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { seededRandom } from '../../src/agent-client/seeded-random.ts';
import { AgentDocument, createConsumerClient } from '../../src/consumer-client/client.ts';
import { isFinal } from '../../src/messages/message.ts';
import { type GatewayProcess, prepareGateway } from '../faults/gateway-process.ts';
import type { History } from '../faults/history.ts';
import { violationsIn } from '../faults/invariants.ts';
import { createPostgresCluster, type PostgresCluster, postgresPrograms } from '../faults/postgres-cluster.ts';
import { type FaultStage, startFaultStage } from '../faults/stage.ts';
import { untilNone } from '../faults/until-none.ts';
import { summary } from './summary.ts';

const seed = Number(process.env.CRASH_SEED ?? randomInt(1_000_000));
const random = seededRandom(seed);

/** Twenty kills, and after every fifth the database; in CI, where more is to be run, eight and every fourth. */
const [kills, between] = process.env.CI ? [8, 4] : [20, 5];
const rounds = Array.from({ length: kills }, (_, index) => index + 1).flatMap((number) => [
  { fault: 'kill', number },
  ...(number % between === 0 ? [{ fault: 'Postgres stopped', number: number / between }] : []),
]);
const killsWhileMigrating = 3;

const isInstalled = postgresPrograms() !== null;
if (!isInstalled && process.env.CI) throw new Error('no Postgres is installed, and CI crashes a real one');
if (!isInstalled) process.stderr.write('No Postgres is installed: there is nothing to crash.\n');

describe.skipIf(!isInstalled)(`a gateway that crashes, seed ${seed}`, () => {
  const recoveriesMs: number[] = [];
  let killed = 0;
  let restarted = 0;
  let cluster: PostgresCluster;
  let sql: postgres.Sql;
  let gateway: GatewayProcess;
  let stage: FaultStage;
  let history: History;

  beforeAll(async () => {
    cluster = await createPostgresCluster();
    sql = postgres(cluster.url, { max: 1, onnotice: () => {} });
    gateway = await prepareGateway({ DATABASE_URL: cluster.url, MESSAGE_TTL: '10s', MESSAGE_RETRY_ATTEMPTS: '4' });
  });

  afterAll(async () => {
    if (history) process.stdout.write(summary(history, { seed, killed, restarted, recoveriesMs, stage }));
    await stage?.stop();
    await gateway?.drop();
    await sql?.end({ timeout: 2 });
    await cluster?.drop();
  });

  /** A random time, so that faults do not come in step with what the gateway does. */
  const awhile = (maxMs: number) => pause(random.fraction() * maxMs);

  async function kill(): Promise<void> {
    await gateway.end('SIGKILL');
    killed++;
  }

  /** Starts the gateway and kills it soon after it has begun to ask the database. */
  async function startInVain(): Promise<void> {
    const startedAt = new Date();
    gateway.start();
    await untilNone(async () => {
      const [found] = await sql`
        select from pg_stat_activity where application_name = 'aegis-gateway' and backend_start > ${startedAt}`;
      return found ? [] : ['the gateway has not asked the database yet'];
    }, 20_000);
    await awhile(400);
    await kill();
  }

  /** Starts the gateway as whoever supervises it would; now and then it is killed while it starts, or while all come back. */
  async function startAgain(): Promise<void> {
    if (random.chance(0.25)) await startInVain();
    gateway.start();
    await gateway.ready();
    if (random.chance(0.25)) {
      await awhile(800);
      await kill();
      gateway.start();
      await gateway.ready();
    }
  }

  /** Everyone comes back, subscribers catch up, and nothing is wrong. */
  async function recover(sinceMs: number): Promise<void> {
    const missing = stage.lookForAll();
    await untilNone(() => (gateway.crashes.length > 0 ? gateway.crashes : missing()), 30_000);
    recoveriesMs.push(performance.now() - sinceMs);
    history = await stage.history();
    await untilNone(() => stage.behind(history.stored), 20_000);
    expect(violationsIn(history, { isAtRest: false })).toEqual([]);
    expect(stage.load.surprises).toEqual([]);
    expect(gateway.crashes).toEqual([]);
  }

  it(`comes up on a database whose migration was cut off ${killsWhileMigrating} times`, async () => {
    for (let time = 0; time < killsWhileMigrating; time++) await startInVain();
    gateway.start();
    await gateway.ready();
    const { url, agentUrl, token } = gateway;
    const serving = () => [gateway];
    stage = await startFaultStage({ seed, url, agentUrl, token, serving, databaseUrl: cluster.url, v2Agents: 3 });
  });

  it.each(rounds)('loses nothing and repeats nothing: $fault $number', async ({ fault }) => {
    await awhile(2_500);
    const sinceMs = performance.now();
    if (fault === 'kill') {
      await kill();
      if (random.chance(0.3)) await awhile(1_000);
      await startAgain();
    } else {
      const isKilled = random.chance(0.5);
      await cluster.stop('immediate');
      restarted++;
      await awhile(1_500);
      if (isKilled) await kill();
      await cluster.start();
      if (isKilled) await startAgain();
    }
    await recover(sinceMs);
  });

  it('shows an agent as gone that died with its gateway, within the lease', async () => {
    const [lost = ''] = stage.fleet.commandable;
    const client = createConsumerClient({ url: gateway.url, token: gateway.token });
    await kill();
    stage.fleet.kill(lost);
    await startAgain();
    await untilNone(async () => {
      const { agent } = await client.query(AgentDocument, { agentId: lost });
      return agent?.connected === false ? [] : [`${lost} is still shown as connected`];
    }, 20_000);
    stage.fleet.revive(lost);
    await untilNone(stage.lookForAll(), 20_000);
  });

  it('has an end for every message and has shown every event, once it is left alone', async () => {
    await stage.quieten();
    await untilNone(async () => {
      history = await stage.history();
      const open = history.stored.messages.filter(({ status }) => !isFinal(status));
      return [...open.map(({ id, status }) => `${id} is ${status}`), ...stage.behind(history.stored, history.streams)];
    }, 60_000);
    expect(violationsIn(history, { isAtRest: true })).toEqual([]);
    expect(stage.load.surprises).toEqual([]);
    expect(gateway.crashes).toEqual([]);
  });
});
