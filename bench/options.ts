import { parseArgs } from 'node:util';

export const scenarioNames = [
  'ingest',
  'signatures',
  'latency',
  'commands',
  'command-latency',
  'broadcast',
  'memory',
  'handshakes',
  'storm',
] as const;
export type ScenarioName = (typeof scenarioNames)[number];

/** How much of everything. */
export interface Sizes {
  readonly agents: number;
  readonly events: number;
  /** Sent before what is measured, so that both sides are compiled and their pools filled. */
  readonly warmUpEvents: number;
  readonly perSecond: number;
  readonly pacedSeconds: number;
  readonly commandedAgents: number;
  readonly commands: number;
  readonly commandsAtOnce: number;
  /** Sent before what is measured, which starts when all agents take commands. */
  readonly warmUpCommands: number;
  readonly commandsPerSecond: number;
  readonly commandSeconds: number;
  readonly broadcastAgents: number;
  readonly idleAgents: number;
  readonly settleMs: number;
  readonly handshakes: number;
  readonly handshakesOneByOne: number;
  readonly handshakesAtOnce: number;
  readonly stormAgents: number;
}

export interface BenchOptions {
  readonly runs: number;
  readonly only: readonly ScenarioName[];
  readonly sizes: Sizes;
  readonly isQuick: boolean;
  /** Measure on the embedded database even where a real one is reachable. */
  readonly embedded: boolean;
  /** A folder with the Go programs `gobaseline` and `loadgen`. */
  readonly yardstick: string | null;
  /** Measure the gateway in so many processes as well; null: in one alone. */
  readonly workers: number | null;
  /** A folder for CPU profiles of the gateway. */
  readonly cpuProfile: string | null;
}

const full: Sizes = {
  agents: 100,
  events: 30_000,
  warmUpEvents: 6_000,
  perSecond: 1_000,
  pacedSeconds: 20,
  commandedAgents: 200,
  commands: 15_000,
  commandsAtOnce: 64,
  warmUpCommands: 3_000,
  commandsPerSecond: 200,
  commandSeconds: 15,
  broadcastAgents: 5_000,
  idleAgents: 5_000,
  settleMs: 30_000,
  handshakes: 2_000,
  handshakesOneByOne: 100,
  handshakesAtOnce: 32,
  stormAgents: 5_000,
};

const quick: Sizes = {
  ...full,
  events: 4_000,
  warmUpEvents: 1_000,
  pacedSeconds: 3,
  commands: 2_000,
  warmUpCommands: 500,
  commandSeconds: 3,
  broadcastAgents: 500,
  idleAgents: 500,
  settleMs: 4_000,
  handshakes: 200,
  handshakesOneByOne: 20,
  stormAgents: 500,
};

export const usage = `Usage: npm run bench -- [options]

  --runs N          how often each scenario is measured on each server (3; with --quick 1)
  --quick           small sizes: to see that everything works, not to learn a number
  --only A,B        of ${scenarioNames.join(', ')}
  --embedded        measure on the embedded database even where a Postgres is reachable
  --workers N       also measure the gateway in N processes (WORKERS, a real database alone)
  --yardstick DIR   also measure the Go programs gobaseline and loadgen in DIR
  --cpu-prof DIR    write CPU profiles of the gateway to DIR

A Postgres is looked for at TEST_DATABASE_URL, else at postgres://postgres@127.0.0.1:5432/postgres.
`;

/** Null: the usage was asked for. Throws an Error that says what does not fit. */
export function readOptions(args: readonly string[]): BenchOptions | null {
  const { values } = parseArgs({
    args: [...args],
    options: {
      runs: { type: 'string' },
      quick: { type: 'boolean', default: false },
      only: { type: 'string', default: scenarioNames.join(',') },
      embedded: { type: 'boolean', default: false },
      workers: { type: 'string' },
      yardstick: { type: 'string' },
      'cpu-prof': { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return null;
  const runs = Number(values.runs ?? (values.quick ? 1 : 3));
  if (!Number.isInteger(runs) || runs < 1) throw new Error('--runs must be a whole number from 1');
  const workers = values.workers === undefined ? null : Number(values.workers);
  if (workers !== null && !(Number.isInteger(workers) && workers > 1 && !values.embedded))
    throw new Error('--workers must be a whole number from 2, without --embedded');
  const only = values.only.split(',').map((wanted) => {
    const name = scenarioNames.find((candidate) => candidate === wanted.trim());
    if (!name) throw new Error(`--only knows ${scenarioNames.join(', ')}; not ${wanted}`);
    return name;
  });
  return {
    runs,
    only,
    sizes: values.quick ? quick : full,
    isQuick: values.quick,
    embedded: values.embedded,
    workers,
    yardstick: values.yardstick ?? null,
    cpuProfile: values['cpu-prof'] ?? null,
  };
}
