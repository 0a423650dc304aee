import { type ChildProcess, fork, type StdioOptions } from 'node:child_process';
import {
  type Assignment,
  createSend,
  listenFd,
  readToPrimary,
  type Send,
  type ToPrimary,
  type ToWorker,
} from './talk.ts';

/** A worker as the primary sees it. */
export interface Worker {
  readonly pid: number | null;
  readonly number: number;
  readonly send: Send<ToWorker>;
  /** Whether it serves; false where it ended before. */
  readonly ready: Promise<boolean>;
  readonly isReady: boolean;
  readonly ended: Promise<WorkerEnd>;
  kill(): void;
}

export interface WorkerEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly livedMs: number;
}

/**
 * Begins a worker: a process of its own on the code that is at `entry` at this moment. `onMessage` hears what it has to say once
 * it has begun.
 */
export function startWorker(
  { entry, fd, assignment }: { readonly entry: string; readonly fd: number; readonly assignment: Assignment },
  onMessage: (worker: Worker, message: ToPrimary) => void,
): Worker {
  const startedMs = performance.now();
  const stdio: StdioOptions = ['ignore', 'inherit', 'inherit', 'ipc'];
  stdio[listenFd] = fd;
  const child = fork(entry, ['worker'], { stdio });
  let isReady = false;
  let becomeReady = () => {};
  const ended = endOf(child).then((end) => ({ ...end, livedMs: performance.now() - startedMs }));
  const worker: Worker = {
    pid: child.pid ?? null,
    number: assignment.number,
    // One that is gone says so by its end.
    send: createSend((message, sent) => child.send(message, sent)),
    ready: Promise.race([
      new Promise<boolean>((resolve) => {
        becomeReady = () => resolve(true);
      }),
      ended.then(() => false),
    ]),
    get isReady() {
      return isReady;
    },
    ended,
    kill: () => void child.kill('SIGKILL'),
  };
  child.on('message', (raw) => {
    const message = readToPrimary(raw);
    if (!message) return;
    if (message.say === 'hello') worker.send({ say: 'begin', assignment });
    else if (message.say !== 'ready') onMessage(worker, message);
    else {
      isReady = true;
      becomeReady();
    }
  });
  return worker;
}

/** A process that cannot even be made tells so by an error alone. */
function endOf(child: ChildProcess): Promise<Pick<WorkerEnd, 'code' | 'signal'>> {
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
    child.on('error', () => {
      if (child.pid === undefined) resolve({ code: null, signal: null });
    });
  });
}
