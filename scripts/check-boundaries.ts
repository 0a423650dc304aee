import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

// Holds the imports to the rules of .dependency-cruiser.cjs, and makes sure that they were read at all.

const cruiser = join('node_modules', 'dependency-cruiser', 'bin', 'dependency-cruise.mjs');
const { stdout, stderr } = spawnSync(
  process.execPath,
  [cruiser, 'src', '--config', '.dependency-cruiser.cjs', '--output-type', 'json'],
  { encoding: 'utf8', maxBuffer: 256 * 1024 * 1024 },
);
if (!stdout) fail(stderr || 'dependency-cruiser said nothing');
const cruise = z.object({
  summary: z.object({
    violations: z.array(z.object({ rule: z.object({ name: z.string() }), from: z.string(), to: z.string() })),
  }),
  modules: z.array(z.object({ source: z.string(), dependencies: z.array(z.unknown()) })),
});
const { summary, modules } = cruise.parse(JSON.parse(stdout));
const files = readdirSync('src', { recursive: true, withFileTypes: true }).filter(
  (entry) => entry.isFile() && /\.[tj]s$/.test(entry.name),
);
const seen = modules.filter(({ source }) => source.startsWith('src/')).length;
const imports = modules.reduce((sum, module) => sum + module.dependencies.length, 0);
if (seen < files.length) fail(`dependency-cruiser saw ${seen} of ${files.length} modules`);
if (imports < files.length) fail(`dependency-cruiser saw only ${imports} imports`);
for (const { rule, from, to } of summary.violations) process.stderr.write(`${rule.name}: ${from} -> ${to}\n`);

const environmentReaders = files
  .map((entry) => join(entry.parentPath, entry.name))
  .filter((file) => file !== join('src', 'config.ts') && /process\.env\b/.test(readFileSync(file, 'utf8')));
for (const file of environmentReaders) process.stderr.write(`only config.ts reads process.env: ${file}\n`);

if (summary.violations.length + environmentReaders.length > 0) process.exit(1);
process.stdout.write(`${seen} modules and ${imports} imports keep to the boundaries\n`);

function fail(reason: string): never {
  process.stderr.write(`${reason}\n`);
  process.exit(1);
}
