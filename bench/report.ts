import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import type { Measurement, Metric } from './scenario.ts';
import type { Contestant } from './servers.ts';
import { median } from './statistics.ts';

type Name = Contestant['name'];

/** A scenario's runs: one measurement for each server, in each of them. */
export interface Series {
  readonly metrics: readonly Metric[];
  readonly runs: readonly ReadonlyMap<Name, Measurement>[];
}

/** The machine, in one line. Taken before the first run: it tells what else the machine was doing. */
export function machineFacts(database: string): string {
  const [first] = cpus();
  const memoryGib = Math.round(totalmem() / 1_024 ** 3);
  const load = loadavg()[0]?.toFixed(1);
  return (
    `${availableParallelism()} cores (${first?.model.trim()}), ${memoryGib} GiB; Linux ${release()}; Node ${process.versions.node}; ` +
    `${database}; load average at the start ${load}`
  );
}

/**
 * A markdown table: for each metric the median of every server, least and most behind it, and by how much the gateway
 * differs: the median of the ratios within each run, as load from elsewhere hits both sides of a run alike.
 */
export function table(series: readonly Series[], names: readonly Name[]): string {
  const others = names.filter((name) => name !== 'gateway');
  const columns = others.flatMap((name) => [name, `gateway ÷ ${name}`]);
  const header = ['', 'gateway', ...columns];
  const rows = series.flatMap(({ metrics, runs }) =>
    metrics.map((metric, index) => {
      const valuesOf = (name: Name) => runs.map((run) => run.get(name)?.values[index] ?? Number.NaN);
      const ratios = (name: Name) => {
        const theirs = valuesOf(name);
        return valuesOf('gateway').map((value, run) => value / (theirs[run] ?? Number.NaN));
      };
      return [
        `${metric.title}, ${metric.unit} ${metric.better === 'more' ? '↑' : '↓'}`,
        cell(valuesOf('gateway'), metric),
        ...others.flatMap((name) => [cell(valuesOf(name), metric), ratioCell(ratios(name))]),
      ];
    }),
  );
  const align = header.map((_, column) => (column === 0 ? '---' : '--:'));
  return [header, align, ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/** A dash for what a server cannot do. */
function cell(values: readonly number[], { decimals }: Metric): string {
  if (values.every(Number.isNaN)) return '–';
  const format = (value: number) =>
    value.toLocaleString('en', { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  if (values.length === 1) return format(median(values));
  return `${format(median(values))} (${format(Math.min(...values))}–${format(Math.max(...values))})`;
}

function ratioCell(ratios: readonly number[]): string {
  const ratio = median(ratios);
  return Number.isNaN(ratio) ? '–' : `**${ratio.toFixed(2)}**`;
}
