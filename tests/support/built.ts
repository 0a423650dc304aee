import { closeSync, mkdirSync, openSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from '../../scripts/build.js';
import { eventually } from './eventually.ts';

const folder = fileURLToPath(new URL('../../node_modules/.cache', import.meta.url));
const lock = join(folder, 'aegis-build.lock');
/** No build takes so long: whoever held it is gone. */
const staleAfterMs = 120_000;

/** Builds `dist/` where it is older than the sources; test files that run side by side wait for each other. */
export async function ensureBuilt(): Promise<void> {
  mkdirSync(folder, { recursive: true });
  await eventually(takeLock, 2 * staleAfterMs);
  try {
    build();
  } finally {
    rmSync(lock, { force: true });
  }
}

function takeLock(): boolean {
  try {
    closeSync(openSync(lock, 'wx'));
    return true;
  } catch {
    const held = statSync(lock, { throwIfNoEntry: false });
    if (held && Date.now() - held.mtimeMs > staleAfterMs) rmSync(lock, { force: true });
    return false;
  }
}
