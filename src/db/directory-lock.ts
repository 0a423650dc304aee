import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';

/** The directory is open in another process. */
export class DatabaseLockedError extends Error {
  constructor(lockFile: string, pid: number) {
    super(`The embedded database is in use by process ${pid} (${lockFile})`);
    this.name = 'DatabaseLockedError';
  }
}

/** Locks that this process holds: its own pid in a lock file is a left-over otherwise. */
const heldLocks = new Set<string>();

/**
 * Takes the lock of a data directory, which it makes where there is none, and gives what lets go of it. A lock that a process
 * left behind when it died is taken over. Throws DatabaseLockedError.
 */
export function lockDirectory(dataDir: string): () => void {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const file = resolve(dataDir, 'postgres.lock');
  if (heldLocks.has(file)) throw new DatabaseLockedError(file, process.pid);
  // Written first and linked then, so that whoever finds a lock file finds the pid in it.
  const own = `${file}.${process.pid}`;
  writeFileSync(own, String(process.pid), { mode: 0o600 });
  try {
    while (!linked(own, file)) {
      const holder = holderOf(file);
      if (isRunning(Number(holder))) throw new DatabaseLockedError(file, Number(holder));
      removeLeftOver(file, own, holder);
    }
  } finally {
    rmSync(own, { force: true });
  }
  heldLocks.add(file);
  return () => {
    heldLocks.delete(file);
    rmSync(file, { force: true });
  };
}

/** Whether `file` is now another name of `own`; false where there is such a file already. */
function linked(own: string, file: string): boolean {
  try {
    linkSync(own, file);
    return true;
  } catch (error) {
    if (isCode(error, 'EEXIST')) return false;
    throw error;
  }
}

/** Takes away the lock of a process that died: aside first, lest it be the one that another process has just put there. */
function removeLeftOver(file: string, own: string, holder: string): void {
  const aside = `${own}.left-over`;
  try {
    renameSync(file, aside);
  } catch (error) {
    if (isCode(error, 'ENOENT')) return;
    throw error;
  }
  if (holderOf(aside) !== holder) linked(aside, file);
  rmSync(aside, { force: true });
}

/** What a lock file says, a pid as a rule; nothing where it has gone meanwhile. */
function holderOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (isCode(error, 'ENOENT')) return '';
    throw error;
  }
}

function isRunning(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  // After a restart of the host (or of a container) the same pid may be ours; `heldLocks` knows what really is.
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return isCode(error, 'EPERM');
  }
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}
