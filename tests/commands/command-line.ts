import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach } from 'vitest';
import { launch, type Run } from './launch.ts';

export type { Run };

const running = new Set<Run>();
const scratch: string[] = [];

/** Ends what a test left running, and removes its directories. */
afterEach(async () => {
  const left = [...running];
  for (const one of left) one.kill('SIGKILL');
  await Promise.all(left.map(({ ended }) => ended));
  for (const folder of scratch.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** A directory of the test's own. */
export function scratchFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'aegis-command-'));
  scratch.push(folder);
  return folder;
}

/** Runs `aegis-gateway <args>` from source, until the test's end at most, with these variables and no others of ours. */
export function run(args: readonly string[], env: Readonly<Record<string, string>> = {}): Run {
  const one = launch(['--import', 'tsx', 'src/main.ts', ...args], env);
  running.add(one);
  void one.ended.then(() => running.delete(one));
  return one;
}
