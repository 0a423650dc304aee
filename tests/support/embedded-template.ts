import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openDatabase } from '../../src/db/database.ts';
import { migrate } from '../../src/db/migrate.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const cache = join(root, 'node_modules', '.cache', 'embedded-template');

/** A folder with a migrated embedded database, the test's own: to make one anew takes a core for ten seconds. */
export async function copyOfEmbeddedTemplate(): Promise<{ readonly dataDir: string; drop(): void }> {
  const template = await embeddedTemplate();
  const dataDir = mkdtempSync(join(tmpdir(), 'aegis-embedded-'));
  cpSync(template, dataDir, { recursive: true });
  return { dataDir, drop: () => rmSync(dataDir, { recursive: true, force: true }) };
}

/** The folder of the template, which is kept until the migrations or the engine change. */
async function embeddedTemplate(): Promise<string> {
  const template = join(cache, fingerprint());
  if (existsSync(template)) return template;
  mkdirSync(cache, { recursive: true });
  const made = mkdtempSync(join(cache, 'new-'));
  const database = await openDatabase({ databaseUrl: null, dataDir: made });
  await migrate(database);
  await database.close();
  try {
    renameSync(made, template);
  } catch (error) {
    // Another worker was first.
    rmSync(made, { recursive: true, force: true });
    if (!existsSync(template)) throw error;
  }
  return template;
}

function fingerprint(): string {
  const hash = createHash('sha256');
  hash.update(readFileSync(join(root, 'node_modules', '@electric-sql', 'pglite', 'package.json')));
  const folder = join(root, 'drizzle');
  for (const file of readdirSync(folder).sort())
    if (file.endsWith('.sql')) hash.update(file).update(readFileSync(join(folder, file)));
  return hash.digest('hex').slice(0, 16);
}
