import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AgentError } from '../agent-error.ts';

/** Locks that this process holds: its own pid in a lock file is a left-over otherwise, as in a container that starts again. */
const heldLocks = new Set<string>();

/**
 * Keeps a second process from using a directory, where it would use the same key and write over the same journal. Gives what
 * lets go. A lock of a process that is gone, or of an earlier boot, is taken over. Throws `STORE_IN_USE`.
 */
export function lockDirectory(directory: string): () => void {
  const file = join(directory, 'lock');
  if (heldLocks.has(file) || !taken(file)) {
    const holder = holderOf(file);
    if (heldLocks.has(file) || isRunning(holder))
      throw new AgentError('STORE_IN_USE', `${directory} is in use by process ${holder.pid}`);
    rmSync(file, { force: true });
    if (!taken(file)) throw new AgentError('STORE_IN_USE', `${directory} is being taken by another process`);
  }
  heldLocks.add(file);
  return () => {
    if (heldLocks.delete(file)) rmSync(file, { force: true });
  };
}

function taken(file: string): boolean {
  try {
    writeFileSync(file, `${process.pid} ${bootId()}`, { flag: 'wx', mode: 0o600 });
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
    throw error;
  }
}

function holderOf(file: string): { readonly pid: number; readonly boot: string } {
  const [pid, boot = ''] = readText(file).split(' ');
  return { pid: Number(pid), boot };
}

/** After a reboot the same pid is somebody else's. */
function isRunning({ pid, boot }: { readonly pid: number; readonly boot: string }): boolean {
  if (!Number.isInteger(pid) || pid <= 0 || pid === process.pid || boot !== bootId()) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/** Empty where the system does not tell. */
function bootId(): string {
  return readText('/proc/sys/kernel/random/boot_id').trim();
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
