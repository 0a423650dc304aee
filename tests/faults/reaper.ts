import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** What must not outlive the test: a process, and the signal that ends it; a folder; or what is mounted on one. */
type Leftover =
  | { readonly process: number; readonly signal: NodeJS.Signals }
  | { readonly folder: string }
  | { readonly mount: string };

let reaper: ChildProcess | null = null;
let count = 0;

/** Has this ended or removed should the test itself end before it calls the answer, whatever ends it. */
export function reapAtTheEnd(owned: Leftover): () => void {
  reaper ??= startReaper();
  const child = reaper;
  const id = ++count;
  child.send({ id, owned });
  return () => void child.send({ id, owned: null });
}

function startReaper(): ChildProcess {
  // Detached: an interrupt from the terminal is for the test, not for what cleans up behind it.
  const child = fork(fileURLToPath(new URL('reaper.cjs', import.meta.url)), {
    detached: true,
    stdio: 'ignore',
    execArgv: [],
  });
  child.unref();
  child.channel?.unref();
  return child;
}
