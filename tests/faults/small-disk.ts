import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { reapAtTheEnd } from './reaper.ts';

/** A file system of its own in memory, which somebody else's file may fill. */
export interface SmallDisk {
  /** Fills it but for so many bytes. */
  fill(leftBytes: number): void;
  /** Removes what fills it. */
  free(): void;
  /** Takes it down, with all that is in it. */
  remove(): void;
}

/** Mounts one on an empty folder. Throws where that is not permitted. */
export function mountSmallDisk(folder: string, sizeMiB: number): SmallDisk {
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${sizeMiB}m`, 'tmpfs', folder], { stdio: 'pipe' });
  const forget = reapAtTheEnd({ mount: folder });
  const ballast = join(folder, 'ballast');
  return {
    fill(leftBytes) {
      const { bavail, bsize } = statfsSync(folder);
      const bytes = bavail * bsize - leftBytes;
      if (bytes > 0) execFileSync('fallocate', ['-l', String(bytes), ballast], { stdio: 'pipe' });
    },
    free: () => rmSync(ballast, { force: true }),
    remove() {
      execFileSync('umount', ['-l', folder], { stdio: 'pipe' });
      forget();
    },
  };
}

/** Whether one can be had here: it takes the rights of an administrator. */
export function canMountSmallDisk(): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'aegis-disk-'));
  try {
    const disk = mountSmallDisk(folder, 1);
    disk.fill(0);
    disk.remove();
    return true;
  } catch {
    return false;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
