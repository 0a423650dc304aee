import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import { createMemoryBus } from '../src/bus/memory-bus.ts';
import { systemClock } from '../src/clock.ts';
import { openDatabase } from '../src/db/database.ts';
import { migrate } from '../src/db/migrate.ts';
import { type Appending, createAppending } from '../src/events/appending.ts';
import { createEvents } from '../src/events/create-events.ts';
import { eventKinds, type NewEvent } from '../src/events/event.ts';
import { createWallClock } from '../src/wall-clock.ts';
import { findDatabases } from './database.ts';
import { machineFacts } from './report.ts';
import { fitLine, type GroupCost, type Line, simulate } from './stream-row-model.ts';

// Measures what one group of events costs the row that numbers the stream, by as many writers as keep it busy, and simulates
// fleets of gateways on it (docs/SCALING.md). The report is markdown on standard output. Under two minutes; with the costs given,
// as --held 1.5,40 --whole 4,60 (milliseconds for a group, microseconds for each event), it simulates alone, at once.

const groupSizes = [1, 16, 64, 250, 500] as const;
const writers = [1, 2, 4] as const;
const secondsEach = 2;
const logError = (error: unknown) => console.error(error);

function group(size: number): NewEvent[] {
  return Array.from({ length: size }, (): NewEvent => {
    const payload = { messageId: randomUUID(), text: 'x'.repeat(300) };
    return {
      ...{ key: randomUUID(), bodyHash: randomUUID(), kind: 'anomalies', orgId: 'default-org', agentUid: randomUUID() },
      ...{ agentName: 'host-1', messageId: payload.messageId, occurredAt: new Date(), trusted: true, sealed: false },
      ...{ severity: 'low', replyTo: null, payload, payloadText: JSON.stringify(payload) },
    };
  });
}

/** Groups a second that so many writers store, each one after the other. */
async function groupsPerSecond(appending: Appending, size: number, count: number): Promise<number> {
  const endMs = performance.now() + secondsEach * 1_000;
  const startMs = performance.now();
  const stored = await Promise.all(
    Array.from({ length: count }, async () => {
      let groups = 0;
      for (; performance.now() < endMs; groups++) await appending.append(group(size), new Date());
      return groups;
    }),
  );
  return stored.reduce((sum, groups) => sum + groups, 0) / ((performance.now() - startMs) / 1_000);
}

/** Measures on a database of its own; prints what it found. */
async function measure(): Promise<GroupCost> {
  const databases = await findDatabases({ embedded: false });
  const facts = machineFacts(databases.description);
  const { url, drop } = await databases.create();
  if (url === null) throw new Error('the row is worth measuring on a Postgres alone');
  const database = await openDatabase({ databaseUrl: url, dataDir: 'memory' });
  await migrate(database);
  const events = createEvents({
    ...{
      database,
      logError,
      clock: systemClock,
      wall: createWallClock(systemClock),
      bus: createMemoryBus(logError),
      onStored: () => {},
    },
    retentionMs: new Map(eventKinds.map((kind) => [kind, 30 * 86_400_000])),
  });
  await events.start();
  const appending = createAppending(database);
  await groupsPerSecond(appending, 100, 2);

  const rows: string[] = [];
  const alone: (readonly [number, number])[] = [];
  const busy: (readonly [number, number])[] = [];
  for (const size of groupSizes) {
    const rates: number[] = [];
    for (const count of writers) rates.push(await groupsPerSecond(appending, size, count));
    const best = Math.max(...rates);
    alone.push([size, 1_000 / (rates[0] ?? 1)]);
    busy.push([size, 1_000 / best]);
    const cells = rates.map((rate) => Math.round(rate * size).toLocaleString('en'));
    rows.push(`| ${size} | ${cells.join(' | ')} | ${(1_000 / best).toFixed(2)} |`);
  }
  await events.stop(1_000);
  await database.close();
  await drop();
  console.log(`${facts}; one run.\n`);
  console.log(
    `| events in a group | ${writers.map((count) => `${count} writers, events/s`).join(' | ')} | the row's time for a group, ms |`,
  );
  console.log(`| --: | ${writers.map(() => '--:').join(' | ')} | --: |\n${rows.join('\n')}\n`);
  return { whole: fitLine(alone), held: fitLine(busy) };
}

/** `1.5,40`: milliseconds for a group and microseconds for each of its events. */
function lineOf(text: string): Line {
  const [base = 0, slope = 0] = text.split(',').map(Number);
  return { base, slope: slope / 1_000 };
}

const { values } = parseArgs({ options: { held: { type: 'string' }, whole: { type: 'string' } } });
const { held, whole } = values;
const cost = held && whole ? { held: lineOf(held), whole: lineOf(whole) } : await measure();
const line = ({ base, slope }: GroupCost['held']) =>
  `${base.toFixed(2)} ms + ${(slope * 1_000).toFixed(1)} µs for each event`;
console.log(
  `A group alone takes ${line(cost.whole)}; with all writers busy one is finished every ${line(cost.held)}.\n`,
);
console.log('| gateways | events/s offered | stored | in a group | the row is busy | stored after, p50 ms | p99 ms |');
console.log('| --: | --: | --: | --: | --: | --: | --: |');
for (const gateways of [1, 2, 10, 30, 100])
  for (const offered of [1_000, 5_000, 10_000, 20_000, 40_000]) {
    const result = simulate(cost, { gateways, perSecond: offered, lanes: 2, maxGroup: 500, seconds: 20 });
    const state = result.isStable
      ? Math.round(result.perSecond).toLocaleString('en')
      : `**${Math.round(result.perSecond).toLocaleString('en')}, and falls behind**`;
    console.log(
      `| ${gateways} | ${offered.toLocaleString('en')} | ${state} | ${result.meanGroup.toFixed(1)} | ${Math.round(result.busyShare * 100)} % | ${result.p50Ms.toFixed(1)} | ${result.p99Ms.toFixed(1)} |`,
    );
  }
