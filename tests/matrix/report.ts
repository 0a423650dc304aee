import type { Journal } from './journal.ts';

/** For each fault how often it was done and how long everyone took to recover, and what went on: as in docs/RELIABILITY.md. */
export function reportOf({ rounds, endings }: Pick<Journal, 'rounds' | 'endings'>): string {
  const faults = [...new Set(rounds.map(({ fault }) => fault))].sort();
  const seconds = (tookMs = 0) => `${(tookMs / 1_000).toFixed(1)} s`;
  const rows = faults.map((name) => {
    const ofFault = rounds.filter(({ fault }) => fault === name).sort((a, b) => a.tookMs - b.tookMs);
    const [middle, last] = [ofFault[Math.floor(ofFault.length / 2)], ofFault.at(-1)];
    const most = `${seconds(last?.tookMs)} (seed ${last?.seed}${last?.notes ? `: ${last.notes}` : ''})`;
    return `| \`${name}\` | ${ofFault.length} | ${seconds(middle?.tookMs)} | ${most} | 0 |`;
  });
  const seeds = [...new Set(rounds.map(({ seed }) => seed))].sort((a, b) => a - b);
  const counts = new Map<string, number>();
  for (const [what, count] of endings.flatMap((ending) => Object.entries(ending.counts)))
    counts.set(what, (counts.get(what) ?? 0) + count);
  return [
    '| fault | rounds | back after, median | at most | violations |',
    '|---|---|---|---|---|',
    ...rows,
    '',
    `Seeds ${seeds.join(', ')}: ${[...counts].map(([what, count]) => `${count} ${what}`).join(', ')}.`,
    '',
  ].join('\n');
}
