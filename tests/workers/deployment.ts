import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

/** The gateway, compiled and put where an operator would, so that a test can put something else there while it runs. */
export interface Deployment {
  /** The program. */
  readonly entry: string;
  readonly dataDir: string;
  /** Has the files say that they are of this version. */
  release(version: string): void;
  /** Puts a build there of which no worker comes up. */
  breakWorkers(): void;
  remove(): void;
}

const root = fileURLToPath(new URL('../..', import.meta.url));

export async function deploy(): Promise<Deployment> {
  const folder = mkdtempSync(join(tmpdir(), 'aegis-deployment-'));
  const { outputFiles } = await build({
    entryPoints: [join(root, 'src/**/*.ts'), join(root, 'src/**/*.js')],
    ...{ outbase: join(root, 'src'), outdir: join(folder, 'dist') },
    ...{ format: 'esm', platform: 'node', target: 'node20', write: false, logLevel: 'error' },
  });
  for (const { path, text } of outputFiles) {
    mkdirSync(dirname(path), { recursive: true });
    // What the compiler of the real build does with imports.
    writeFileSync(path, text.replaceAll(/((?:from|import)\s*\(?\s*["']\.{1,2}\/[^"']*)\.ts(["'])/g, '$1.js$2'));
  }
  for (const name of ['node_modules', 'drizzle']) symlinkSync(join(root, name), join(folder, name));
  const manifest: Record<string, unknown> = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const release = (version: string) =>
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ ...manifest, version }));
  release('1.0.0');
  return {
    entry: join(folder, 'dist/main.js'),
    dataDir: join(folder, 'data'),
    release,
    breakWorkers: () => writeFileSync(join(folder, 'dist/commands/worker.js'), 'throw new Error("a broken build");'),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}
