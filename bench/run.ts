import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { findDatabases } from './database.ts';
import { type BenchOptions, readOptions, usage } from './options.ts';
import { endAllPrograms, projectRoot } from './processes.ts';
import { machineFacts, type Series, table } from './report.ts';
import { type Measurement, measureOn, type Scenario } from './scenario.ts';
import { scenarios } from './scenarios.ts';
import { type Contestant, floor, gateway, goBaseline } from './servers.ts';
import { goScenarios } from './yardstick.ts';

// Measures the gateway beside its floor (docs/PERFORMANCE.md). Progress goes to standard error, the report to standard
// output. Exits with 1 where a number is worthless, say because events were lost, and with 2 where it was misused.

async function bench(options: BenchOptions): Promise<number> {
  build();
  const databases = await findDatabases(options);
  const { yardstick, workers } = options;
  const contestants = [
    floor,
    gateway(databases, { cpuProfile: options.cpuProfile }),
    ...(workers === null ? [] : [gateway(databases, { cpuProfile: options.cpuProfile, workers })]),
    ...(yardstick === null ? [] : [goBaseline(yardstick)]),
  ];
  const faults: string[] = [];
  const facts = machineFacts(databases.description);
  const isWanted = (scenario: Scenario) => options.only.includes(scenario.name);

  const own = await measureAll(scenarios.filter(isWanted), contestants, options, 'load/', faults);
  const withGo =
    yardstick === null
      ? []
      : await measureAll(goScenarios(yardstick).filter(isWanted), contestants, options, 'loadgen', faults);

  const names = contestants.map(({ name }) => name);
  const times = options.runs === 1 ? 'one run' : `medians of ${options.runs} runs (least–most)`;
  console.log(`${facts}; ${times}${options.isQuick ? '; QUICK: sizes too small to mean anything' : ''}.\n`);
  console.log(table(own, names));
  if (withGo.length > 0)
    console.log(`\nThe same servers under the independent load generator:\n\n${table(withGo, names)}`);
  console.log(
    `\n${faults.length === 0 ? 'Nothing was lost.' : faults.map((fault) => `- **WORTHLESS**: ${fault}`).join('\n')}`,
  );
  return faults.length === 0 ? 0 : 1;
}

/** All servers in turn, in the other direction every other run: what heats up or slows down hits each as often first as last. */
async function measureAll(
  wanted: readonly Scenario[],
  contestants: readonly Contestant[],
  { runs, sizes }: BenchOptions,
  generator: string,
  faults: string[],
): Promise<Series[]> {
  const series = wanted.map((scenario) => ({
    scenario,
    metrics: scenario.metrics(sizes),
    runs: Array.from({ length: runs }, () => new Map<Contestant['name'], Measurement>()),
  }));
  for (let run = 0; run < runs; run++) {
    for (const { scenario, metrics, runs } of series) {
      for (const contestant of run % 2 === 0 ? contestants : contestants.toReversed()) {
        if (scenario.sendsCommands && !contestant.takesCommands) continue;
        const measurement = await measureOn(contestant, scenario, sizes);
        runs[run]?.set(contestant.name, measurement);
        const place = `run ${run + 1}, ${scenario.name} (${generator}), ${contestant.name}`;
        const values = metrics.map(
          ({ unit, decimals }, index) => `${measurement.values[index]?.toFixed(decimals)} ${unit}`,
        );
        console.error(`${place}: ${values.join(', ')}`);
        faults.push(...measurement.faults.map((fault) => `${place}: ${fault}`));
      }
    }
  }
  return series;
}

function build(): void {
  const { status } = spawnSync(process.execPath, [join(projectRoot, 'scripts/build.js')], { stdio: 'inherit' });
  if (status !== 0) throw new Error('the gateway does not compile');
}

/** Null: the usage was asked for, or is what the caller needs. */
function optionsOrUsage(): BenchOptions | null {
  try {
    const options = readOptions(process.argv.slice(2));
    if (!options) console.log(usage);
    return options;
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${usage}`);
    process.exitCode = 2;
    return null;
  }
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, endAllPrograms);
const options = optionsOrUsage();
if (options) process.exitCode = await bench(options);
