/** For each fault how often it was done and how long everyone took to recover, as the table of docs/RELIABILITY.md. */
export function reportOf(recoveries: readonly { readonly fault: string; readonly tookMs: number }[]): string {
  const names = [...new Set(recoveries.map(({ fault }) => fault))].sort();
  const seconds = (tookMs = 0) => `${(tookMs / 1_000).toFixed(1)} s`;
  const rows = names.map((name) => {
    const took = recoveries.filter(({ fault }) => fault === name).map(({ tookMs }) => tookMs);
    took.sort((a, b) => a - b);
    return `| \`${name}\` | ${took.length} | ${seconds(took[Math.floor(took.length / 2)])} | ${seconds(took.at(-1))} |`;
  });
  return ['| fault | rounds | back after, median | at most |', '|---|---|---|---|', ...rows, ''].join('\n');
}
