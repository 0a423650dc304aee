import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { AgentError } from '../agent-error.ts';
import { type AgentStore, JournalContents, type StoredIdentity } from '../store.ts';
import { lockDirectory } from './directory-lock.ts';
import { JournalFile } from './journal-file.ts';
import { replaceFile } from './lasting-files.ts';

const identityFields = z.object({
  version: z.literal(1),
  agentId: z.string(),
  orgId: z.string().nullable(),
  seed: z.base64url().transform(bytes32),
  nextSeed: z.base64url().transform(bytes32).nullable(),
  uid: z.string().nullable(),
  pins: z.array(z.string()),
  configuredPins: z.array(z.string()),
  epoch: z.number().int().nonnegative(),
  enrolledAs: z.string().nullable(),
});

/**
 * Keeps an agent in a directory of its own, which is made where there is none, for its owner alone (0700, files 0600):
 * `identity.json`, which is replaced as a whole, and `journal`, to which is appended. What was promised has been through
 * `fsync`: a power failure loses nothing of it. `open` rejects with `STORE_CORRUPT`, which names the file, and `STORE_IN_USE`.
 */
export function createFileStore(directory: string): AgentStore {
  const identityFile = join(directory, 'identity.json');
  let unlock: (() => void) | null = null;
  let journal: JournalFile | null = null;
  /** One write after the other. */
  let writing: Promise<void> = Promise.resolve();

  return {
    async open() {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      unlock = lockDirectory(directory);
      try {
        const identity = await readIdentity(identityFile);
        const contents = new JournalContents();
        journal = await JournalFile.open(join(directory, 'journal'), contents);
        return contents.read(identity);
      } catch (error) {
        unlock();
        throw error;
      }
    },
    saveIdentity(identity) {
      const saved = writing.then(async () => {
        const handle = await replaceFile(identityFile, [identityText(identity)]);
        await handle.close();
      });
      writing = saved.catch(() => undefined);
      return saved;
    },
    append(entries) {
      if (!journal) return Promise.reject(new AgentError('STORE_FAILED', 'the store is not open'));
      return journal.append(entries);
    },
    async close() {
      await writing;
      await journal?.close();
      journal = null;
      unlock?.();
      unlock = null;
    },
  };
}

async function readIdentity(file: string): Promise<StoredIdentity | null> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    if (isMissing(error)) return null;
    throw error;
  });
  if (text === null) return null;
  try {
    const { version: _, ...identity } = identityFields.parse(JSON.parse(text));
    return identity;
  } catch {
    // Without what was thrown: it may quote the file, and the file holds the key.
    throw new AgentError('STORE_CORRUPT', `${file} does not hold an agent's identity`);
  }
}

function identityText(identity: StoredIdentity): string {
  const [seed, nextSeed] = [base64url(identity.seed), identity.nextSeed && base64url(identity.nextSeed)];
  return `${JSON.stringify({ version: 1, ...identity, seed, nextSeed }, null, 2)}\n`;
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64url');
}

function bytes32(text: string): Uint8Array {
  const bytes = Uint8Array.from(Buffer.from(text, 'base64url'));
  if (bytes.length !== 32) throw new RangeError('not 32 bytes');
  return bytes;
}
