import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The command line in a process of its own, as an operator runs it. */
export interface Run {
  readonly pid: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Resolves with the match once standard output has it. Rejects where the process ends without it. */
  printed(pattern: RegExp): Promise<RegExpExecArray>;
  kill(signal: NodeJS.Signals): void;
  /** The exit code, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>;
}

const running = new Set<ChildProcess>();
const scratch: string[] = [];

/** Ends what a test left running, and removes its directories. */
afterEach(async () => {
  const left = [...running];
  for (const child of left) child.kill('SIGKILL');
  await Promise.all(
    left.map((child) => (child.exitCode === null && child.signalCode === null ? once(child, 'close') : null)),
  );
  for (const folder of scratch.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** A directory of the test's own. */
export function scratchFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'aegis-command-'));
  scratch.push(folder);
  return folder;
}

/** Runs `aegis-gateway <args>` with these variables and no others of ours. */
export function run(args: readonly string[], env: Readonly<Record<string, string>> = {}): Run {
  const { PATH = '', HOME = '' } = process.env;
  const child = spawn(process.execPath, ['--import', 'tsx', 'src/main.ts', ...args], {
    cwd: root,
    env: { PATH, HOME, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  const output = { stdout: '', stderr: '' };
  const changed = new Set<() => void>();
  const ended = new Promise<number | NodeJS.Signals>((resolve) => {
    child.once('close', (code, signal) => {
      running.delete(child);
      resolve(code ?? signal ?? 'SIGKILL');
    });
  });
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text;
      for (const look of changed) look();
    });
  return {
    pid: child.pid ?? 0,
    get stdout() {
      return output.stdout;
    },
    get stderr() {
      return output.stderr;
    },
    printed: (pattern) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const match = pattern.exec(output.stdout);
          if (match) resolve(match);
        };
        changed.add(look);
        look();
        void ended.then((code) => reject(new Error(`ended with ${code}:\n${output.stdout}\n${output.stderr}`)));
      }),
    kill: (signal) => void child.kill(signal),
    ended,
  };
}
