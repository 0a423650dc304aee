import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

export const projectRoot = fileURLToPath(new URL('..', import.meta.url));

/** A program that runs beside the benchmark. */
export interface Program {
  readonly pid: number;
  /** Resolves with the first line of its output that fits. Rejects when it ends before, or after `timeoutMs`. */
  line(pattern: RegExp, timeoutMs: number): Promise<RegExpMatchArray>;
  /** SIGTERM, and SIGKILL where that does not end it. */
  stop(): Promise<void>;
}

const stopTimeoutMs = 12_000;
const rememberedErrorCharacters = 4_000;
const running = new Set<ChildProcess>();

let isEnding = false;

/** Ends what runs, and whatever is started later, so that what waits for it fails and cleans up behind itself. */
export function endAllPrograms(): void {
  isEnding = true;
  for (const child of running) child.kill('SIGTERM');
}

/** Takes a child under the wing of `endAllPrograms` until it exits. */
export function watch(child: ChildProcess): void {
  running.add(child);
  if (isEnding) child.kill('SIGTERM');
  child.once('exit', () => running.delete(child));
}

/** Starts a program in the project's folder, in the environment given and in PATH and HOME. Rejects where there is no such program. */
export async function startProgram(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Program> {
  const { PATH = '', HOME = '' } = process.env;
  const child = spawn(command, args, {
    cwd: projectRoot,
    env: { PATH, HOME, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  await once(child, 'spawn');
  watch(child);
  const { pid } = child;
  if (pid === undefined) throw new Error(`${command} has no process id`);
  const exited = once(child, 'exit');
  const lines: string[] = [];
  let errors = '';
  let tellLine = (_line: string) => {};
  let tellExit = () => {};
  createInterface(child.stdout).on('line', (line) => {
    lines.push(line);
    tellLine(line);
  });
  child.stderr.on('data', (text) => {
    errors = (errors + text).slice(-rememberedErrorCharacters);
  });
  // `close`: the output has been read to its end by then.
  let hasClosed = false;
  child.once('close', () => {
    hasClosed = true;
    tellExit();
  });

  return {
    pid,
    line(pattern, timeoutMs) {
      return new Promise((resolve, reject) => {
        const fail = (what: string) => {
          clearTimeout(timer);
          reject(
            new Error(`${command} ${what} instead of saying ${pattern}: ${lines.slice(-5).join('\n')}\n${errors}`),
          );
        };
        const timer = setTimeout(() => fail('was silent'), timeoutMs);
        tellExit = () => fail('ended');
        tellLine = (line) => {
          const match = line.match(pattern);
          if (!match) return;
          clearTimeout(timer);
          tellLine = () => {};
          tellExit = () => {};
          resolve(match);
        };
        for (const line of [...lines]) tellLine(line);
        if (hasClosed) tellExit();
      });
    },
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), stopTimeoutMs);
      await exited;
      clearTimeout(timer);
    },
  };
}

/** The memory of a server that is in RAM, in KiB (Linux: VmRSS); its workers' included, who share some of it. */
export function residentKib(pid: number): number {
  return sum(withChildren(pid).map(residentKibOfOne));
}

/** The processor time that a server has used, all threads of it and of its workers, in seconds. Linux counts it in hundredths. */
export function processorSeconds(pid: number): number {
  return sum(withChildren(pid).map(processorSecondsOfOne));
}

/** The process and those that it has begun. */
function withChildren(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
  return [pid, ...children.map(Number)];
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function residentKibOfOne(pid: number): number {
  const [, kib] = readFileSync(`/proc/${pid}/status`, 'utf8').match(/^VmRSS:\s+(\d+) kB$/m) ?? [];
  return Number(kib);
}

function processorSecondsOfOne(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The second field is a name in parentheses that may hold anything; utime and stime are the 14th and 15th.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
