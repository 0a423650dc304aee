/**
 * Checks that what is generated and committed is what would be generated now: `schema.graphql`, the consumer client, the
 * migrations and the test vectors of protocol v2. Leaves no file behind; exits with 1 and says what to run where something differs.
 */
import { execFile } from 'node:child_process';
import { cp, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { generate } from '@graphql-codegen/cli';
import { printSchema } from 'graphql';
import { z } from 'zod';
import codegenConfig from '../codegen.ts';
import { buildSchema } from '../src/schema/schema.ts';
import { makeVectors } from './v2-vectors.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const run = promisify(execFile);
const generateTimeoutMs = 120_000;

async function textOf(path: string): Promise<string | null> {
  try {
    return await readFile(join(root, path), 'utf8');
  } catch {
    return null;
  }
}

async function schemaDrift(): Promise<string[]> {
  const current = `${printSchema(buildSchema())}\n`;
  return (await textOf('schema.graphql')) === current
    ? []
    : ['schema.graphql is not the schema of src/schema: npm run generate'];
}

async function clientDrift(): Promise<string[]> {
  const folder = 'src/consumer-client/generated';
  const generated: unknown = await generate({ ...codegenConfig, cwd: root, silent: true }, false);
  const files = z.array(z.object({ filename: z.string(), content: z.string() })).parse(generated);
  const committed = await readdir(join(root, folder)).catch(() => []);
  const expected = new Map(files.map(({ filename, content }) => [basename(filename), content]));
  const problems: string[] = [];
  for (const name of new Set([...expected.keys(), ...committed])) {
    if ((await textOf(join(folder, name))) !== (expected.get(name) ?? null))
      problems.push(`${folder}/${name} is not what codegen.ts makes: npm run generate`);
  }
  return problems;
}

/** Has drizzle-kit write the next migration beside a copy of those that there are: there must be none to write. */
async function migrationDrift(): Promise<string[]> {
  const scratch = await mkdtemp(join(tmpdir(), 'aegis-drift-'));
  try {
    // Relative, as drizzle-kit takes it for a path under the working directory.
    await cp(join(root, 'drizzle'), join(scratch, 'drizzle'), { recursive: true });
    const before = await filesUnder(join(scratch, 'drizzle'));
    const command = join(root, 'node_modules/drizzle-kit/bin.cjs');
    const tables = join(root, 'src/db/tables.ts');
    const options = ['--dialect', 'postgresql', '--schema', tables, '--out', './drizzle'];
    const { stdout } = await run(process.execPath, [command, 'generate', ...options], {
      cwd: scratch,
      timeout: generateTimeoutMs,
    });
    const added = (await filesUnder(join(scratch, 'drizzle'))).filter((file) => !before.includes(file));
    if (added.length === 0 && stdout.includes('No schema changes')) return [];
    const [migration] = added.filter((file) => file.endsWith('.sql'));
    const text = migration ? await readFile(join(scratch, 'drizzle', migration), 'utf8') : stdout;
    return [`src/db/tables.ts says more than the migrations in drizzle/: npm run generate:migration\n${text.trim()}`];
  } catch (error) {
    return [`drizzle-kit could not compare src/db/tables.ts with drizzle/: ${String(error)}`];
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** drizzle's `migrate` goes by time alone and skips in silence what is older than the last one it ran. */
async function journalDisorder(): Promise<string[]> {
  const journal = z
    .object({ entries: z.array(z.object({ idx: z.int(), when: z.int(), tag: z.string() })) })
    .parse(JSON.parse((await textOf('drizzle/meta/_journal.json')) ?? '{}'));
  return journal.entries.flatMap((entry, index) => {
    const earlier = journal.entries[index - 1];
    if (entry.idx === index && (!earlier || earlier.when < entry.when)) return [];
    return [
      `drizzle/meta/_journal.json: ${entry.tag} is out of order and would be skipped by databases that are ahead of it`,
    ];
  });
}

async function vectorDrift(): Promise<string[]> {
  const path = 'tests/vectors/aegis-v2.json';
  return (await textOf(path)) === makeVectors()
    ? []
    : [`${path} is not what scripts/v2-vectors.ts makes: npm run generate:vectors`];
}

async function filesUnder(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true });
  return entries.sort();
}

const problems = [
  ...(await schemaDrift()),
  ...(await clientDrift()),
  ...(await migrationDrift()),
  ...(await journalDisorder()),
  ...(await vectorDrift()),
];
for (const problem of problems) console.error(problem);
if (problems.length > 0) process.exitCode = 1;
else console.log('schema.graphql, the consumer client, the migrations and the vectors are up to date');
