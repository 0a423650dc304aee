import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DatabaseLockedError, lockDirectory } from '../../src/db/directory-lock.ts';

describe('the lock of a data directory', () => {
  let directory: string;
  const file = () => join(directory, 'postgres.lock');

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'aegis-lock-'));
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  it('holds the pid, for its owner alone to read, and is gone when it is let go of', () => {
    const unlock = lockDirectory(directory);
    expect(readFileSync(file(), 'utf8')).toBe(String(process.pid));
    expect(statSync(file()).mode & 0o777).toBe(0o600);
    unlock();
    expect(readdirSync(directory)).toEqual([]);
    lockDirectory(directory)();
  });

  it('makes the directory, for its owner alone', () => {
    const inner = join(directory, 'a', 'b');
    const unlock = lockDirectory(inner);
    expect(statSync(inner).mode & 0o777).toBe(0o700);
    unlock();
  });

  it('is refused to a second taker in the same process, by whatever path', () => {
    const unlock = lockDirectory(directory);
    expect(() => lockDirectory(directory)).toThrow(DatabaseLockedError);
    expect(() => lockDirectory(`${directory}/../${directory.split('/').at(-1)}`)).toThrow(DatabaseLockedError);
    expect(existsSync(file())).toBe(true);
    unlock();
  });

  it('is refused while another process that runs holds it, and says which', () => {
    const other = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
    try {
      writeFileSync(file(), String(other.pid));
      expect(() => lockDirectory(directory)).toThrow(
        `The embedded database is in use by process ${other.pid} (${file()})`,
      );
      expect(readFileSync(file(), 'utf8')).toBe(String(other.pid));
    } finally {
      other.kill('SIGKILL');
    }
  });

  const deadPid = spawnSync(process.execPath, ['--version']).pid;
  it.each([
    ['of a process that died', String(deadPid)],
    ['of this very pid, from before a restart', String(process.pid)],
    ['that is empty', ''],
    ['that is nonsense', 'nonsense'],
    ['of no process', '-1'],
  ])('is taken over from one %s', (_what, content) => {
    writeFileSync(file(), content);
    const unlock = lockDirectory(directory);
    expect(readFileSync(file(), 'utf8')).toBe(String(process.pid));
    expect(readdirSync(directory)).toEqual(['postgres.lock']);
    unlock();
  });
});
