import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** A program in a process of its own, as an operator runs it. */
export interface Run {
  readonly pid: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Resolves with the match once standard output has it. Rejects where the process ends without it. */
  printed(pattern: RegExp): Promise<RegExpExecArray>;
  kill(signal: NodeJS.Signals): void;
  /** The exit code, or the signal that ended it; once nobody writes to its output any more. */
  readonly ended: Promise<number | NodeJS.Signals>;
}

/** Runs Node with these arguments and these variables and no others of ours. Whoever begins it ends it. */
export function launch(args: readonly string[], env: Readonly<Record<string, string>>): Run {
  const { PATH = '', HOME = '' } = process.env;
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: { PATH, HOME, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = { stdout: '', stderr: '' };
  const changed = new Set<() => void>();
  const ended = new Promise<number | NodeJS.Signals>((resolve) => {
    child.once('close', (code, signal) => resolve(code ?? signal ?? 'SIGKILL'));
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
