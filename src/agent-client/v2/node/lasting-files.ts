import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Writes a file anew, for its owner alone. It holds the old content or the new one, whatever happens; the new one lasts once
 * this resolves. Gives the handle, open for appending.
 */
export async function replaceFile(file: string, parts: Iterable<string>): Promise<FileHandle> {
  const fresh = `${file}.new`;
  await rm(fresh, { force: true });
  const handle = await open(fresh, 'ax', 0o600);
  try {
    for (const part of parts) await handle.appendFile(part);
    await handle.sync();
    await rename(fresh, file);
  } catch (error) {
    await handle.close();
    throw error;
  }
  await syncDirectory(dirname(file));
  return handle;
}

/** Makes the names in it last. Not every system lets a directory be opened. */
async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r').catch(() => null);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}
