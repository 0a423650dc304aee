import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Redis } from 'ioredis';
import { findDatabases } from './database.ts';
import { type Generator, withGenerator } from './generator.ts';
import { type Cost, costBetween, type InstanceGroup, startGroup, startRedis } from './instance-group.ts';
import { commanded, connected, delivered } from './load/protocol.ts';
import { endAllPrograms, processorSeconds, projectRoot } from './processes.ts';
import { machineFacts } from './report.ts';
import { median } from './statistics.ts';

// Measures one, two and three gateways on one Postgres, with Redis between them and without: handshakes, events and commands,
// and what each costs the gateways, Postgres and Redis. The report is markdown on standard output. Under six minutes.

const { values } = parseArgs({ options: { quick: { type: 'boolean', default: false }, runs: { type: 'string' } } });
const sizes = values.quick
  ? { handshakes: 60, agents: 60, events: 3_000, warmUpEvents: 500, commandedAgents: 60, commands: 600, warmUp: 100 }
  : {
      ...{ handshakes: 480, agents: 120, events: 20_000, warmUpEvents: 5_000 },
      ...{ commandedAgents: 120, commands: 4_000, warmUp: 800 },
    };
const runs = Number(values.runs ?? (values.quick ? 1 : 2));
/** No run is begun that would not be over by then, going by those before. */
const budgetMs = 330_000;
const atOnce = 32;

const setups = [
  { name: '1', instances: 1, withRedis: false },
  { name: '1, Redis', instances: 1, withRedis: true },
  { name: '2', instances: 2, withRedis: false },
  { name: '2, Redis', instances: 2, withRedis: true },
  { name: '3, Redis', instances: 3, withRedis: true },
] as const;

/** One kind of work: how much a second, and what one piece costs. */
interface Result {
  readonly perSecond: number;
  readonly each: Cost;
}

const works = ['handshakes', 'events', 'commands'] as const;
type Results = Readonly<Record<(typeof works)[number], Result>>;
const faults: string[] = [];

async function measure(group: InstanceGroup): Promise<Results> {
  const handshakes = await withGenerator((generator) =>
    costed(group, sizes.handshakes, () => spread(generator, group, sizes.handshakes)),
  );
  const events = await withGenerator(async (generator) => {
    await spread(generator, group, sizes.agents);
    await sendEvents(generator, group, sizes.warmUpEvents);
    return costed(group, sizes.events, () => sendEvents(generator, group, sizes.events));
  });
  const commands = await withGenerator(async (generator) => {
    await spread(generator, group, sizes.commandedAgents);
    await sendCommands(generator, group, sizes.warmUp);
    return costed(group, sizes.commands, () => sendCommands(generator, group, sizes.commands));
  });
  return { handshakes, events, commands };
}

/** Does work of so many pieces, and gives what one of them took of everybody. */
async function costed(group: InstanceGroup, pieces: number, work: () => Promise<unknown>): Promise<Result> {
  const before = await group.usage();
  const startMs = performance.now();
  await work();
  const seconds = (performance.now() - startMs) / 1_000;
  const cost = costBetween(before, await group.usage());
  const share = (total: number) => total / pieces;
  return {
    perSecond: pieces / seconds,
    each: {
      gateways: share(cost.gateways),
      postgres: share(cost.postgres),
      redis: share(cost.redis),
      walBytes: share(cost.walBytes),
      publishes: share(cost.publishes),
    },
  };
}

/** As many agents to each gateway as to any other. */
async function spread(generator: Generator, { targets }: InstanceGroup, agents: number): Promise<void> {
  for (const target of targets)
    await generator.order({ do: 'connect', target, agents: agents / targets.length, atOnce }, connected);
}

/** All agents send, and one subscriber at the first gateway reads everything. */
async function sendEvents(generator: Generator, { targets: [target] }: InstanceGroup, events: number): Promise<void> {
  if (!target) return;
  const order = { do: 'send events', target, perSecond: null, spreadSeconds: false, events } as const;
  const { lost, duplicated } = await generator.order(order, delivered);
  if (lost + duplicated > 0) faults.push(`of ${events} events ${lost} were lost and ${duplicated} came twice`);
}

/** The first gateway accepts them all. */
async function sendCommands(generator: Generator, { targets }: InstanceGroup, commands: number): Promise<void> {
  const [first, ...others] = targets;
  if (!first) return;
  const target = { ...first, siblingUrls: others.flatMap(({ commandUrl }) => commandUrl ?? []) };
  const order = { do: 'send commands', target, commands, pace: { atOnce: 64 } } as const;
  const { lost, duplicated } = await generator.order(order, commanded);
  if (lost + duplicated > 0) faults.push(`of ${commands} commands ${lost} were lost and ${duplicated} came twice`);
}

/** What Redis itself carries: texts of 500 bytes to three subscribers. */
async function measureRedis(): Promise<string> {
  const redis = await startRedis();
  const subscribers = Array.from({ length: 3 }, () => new Redis(redis.port, '127.0.0.1'));
  const publisher = new Redis(redis.port, '127.0.0.1');
  const texts = values.quick ? 5_000 : 60_000;
  const body = 'x'.repeat(500);
  let heard = 0;
  for (const subscriber of subscribers) {
    await subscriber.subscribe('channel');
    subscriber.on('message', () => heard++);
  }
  const startMs = performance.now();
  const beforeSeconds = processorSeconds(redis.pid);
  for (let sent = 0; sent < texts; sent += 500)
    await Promise.all(Array.from({ length: 500 }, () => publisher.publish('channel', body)));
  while (heard < texts * subscribers.length) await new Promise((resolve) => setTimeout(resolve, 5));
  const seconds = (performance.now() - startMs) / 1_000;
  const usedSeconds = processorSeconds(redis.pid) - beforeSeconds;
  for (const client of [publisher, ...subscribers]) client.disconnect();
  await redis.stop();
  const perText = (usedSeconds / texts) * 1_000_000;
  return `Redis alone, ${texts.toLocaleString('en')} texts of 500 bytes to three subscribers in one Node process: ${Math.round(texts / seconds).toLocaleString('en')} texts/s, ${perText.toFixed(1)} µs of Redis for each text.`;
}

function report(measured: readonly ReadonlyMap<string, Results>[]): string {
  const rows = works.flatMap((work) => {
    const row = (title: string, decimals: number, read: (result: Result) => number) => {
      const cells = setups.map(({ name }) => {
        const found = measured.map((run) => run.get(name)).flatMap((results) => (results ? read(results[work]) : []));
        if (found.length === 0) return '–';
        return median(found).toLocaleString('en', { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
      });
      return `| ${title} | ${cells.join(' | ')} |`;
    };
    const one = work.slice(0, -1);
    return [
      row(`**${work}**, 1/s`, 0, ({ perSecond }) => perSecond),
      row(`gateways' processor time for each ${one}, µs`, 0, ({ each }) => each.gateways * 1_000_000),
      row("Postgres' processor time, µs", 0, ({ each }) => each.postgres * 1_000_000),
      row("Redis' processor time, µs", 1, ({ each }) => each.redis * 1_000_000),
      row('all of them, µs', 0, ({ each }) => (each.gateways + each.postgres + each.redis) * 1_000_000),
      row('WAL, bytes', 0, ({ each }) => each.walBytes),
      row('texts over Redis', 3, ({ each }) => each.publishes),
    ];
  });
  return [
    `|  | ${setups.map(({ name }) => name).join(' | ')} |`,
    '| --- | --: | --: | --: | --: | --: |',
    ...rows,
  ].join('\n');
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, endAllPrograms);
const { status } = spawnSync(process.execPath, [join(projectRoot, 'scripts/build.js')], { stdio: 'inherit' });
if (status !== 0) throw new Error('the gateway does not compile');
const databases = await findDatabases({ embedded: false });
const facts = machineFacts(databases.description);
const measured: ReadonlyMap<string, Results>[] = [];
const startMs = performance.now();
for (let run = 0; run < runs; run++) {
  if ((performance.now() - startMs) * (1 + 1 / Math.max(1, run)) > budgetMs) break;
  const results = new Map<string, Results>();
  for (const setup of run % 2 === 0 ? setups : setups.toReversed()) {
    const group = await startGroup(databases, setup);
    try {
      const result = await measure(group);
      results.set(setup.name, result);
      console.error(
        `run ${run + 1}, ${setup.name}: ${works.map((work) => `${Math.round(result[work].perSecond)} ${work}/s`).join(', ')}`,
      );
    } catch (error) {
      faults.push(`run ${run + 1}, ${setup.name}: ${error instanceof Error ? error.message : error}`);
    } finally {
      await group.stop();
    }
  }
  measured.push(results);
}
const redisAlone = await measureRedis();
console.log(
  `${facts}; ${measured.length === 1 ? 'one run' : `medians of ${measured.length} runs`}.\n\n${report(measured)}\n\n${redisAlone}\n`,
);
console.log(faults.length === 0 ? 'Nothing was lost.' : faults.map((fault) => `- **WORTHLESS**: ${fault}`).join('\n'));
process.exitCode = faults.length === 0 ? 0 : 1;
