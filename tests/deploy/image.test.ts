import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { freePort } from '../faults/free-port.ts';
import { reapAtTheEnd } from '../faults/reaper.ts';
import { ensureBuilt } from '../support/built.ts';
import { createTestDatabase, type TestDatabase } from '../support/databases.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** `nobody`, of Debian. */
const nobody = { uid: 65_534, gid: 65_534 };
const identity = process.getuid?.() === 0 ? nobody : {};

// What `docker build` does, step by step, in a folder: there need not be a container engine here.
describe('the image of deploy/Dockerfile', { timeout: 120_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'aegis-image-'));
  const forget = reapAtTheEnd({ folder });
  const [app, data] = [join(folder, 'app'), join(folder, 'data')];
  let database: TestDatabase;
  let port = 0;

  beforeAll(async () => {
    database = await createTestDatabase();
    port = await freePort();
    chmodSync(folder, 0o755);
    mkdirSync(data, { mode: 0o700 });
    if (identity === nobody) chownSync(data, nobody.uid, nobody.gid);
    await install();
  }, 240_000);

  afterAll(async () => {
    rmSync(folder, { recursive: true, force: true });
    forget();
    await database?.drop();
  });

  /** The stages `dependencies` and the last one, as the Dockerfile has them; what `build` gives is `dist/` as it is here. */
  async function install(): Promise<void> {
    await ensureBuilt();
    const [, dependencies = '', image = ''] = readFileSync(join(root, 'deploy/Dockerfile'), 'utf8')
      .split(/^FROM .*$/m)
      .slice(1);
    copy(dependencies);
    const [, command = ''] = /^RUN (npm ci .*?) &&/m.exec(dependencies) ?? [];
    const args = command.split(' ').slice(1);
    execFileSync('npm', [...args, '--prefer-offline', '--no-audit', '--no-fund'], { cwd: app, stdio: 'pipe' });
    copy(image);
    cpSync(join(root, 'dist'), join(app, 'dist'), { recursive: true });
  }

  function copy(stage: string): void {
    for (const [, paths = ''] of stage.matchAll(/^COPY (?!--from)(.+)$/gm)) {
      const sources = paths.split(' ');
      const target = sources.pop() ?? '';
      for (const source of sources) {
        const isFolder = target.endsWith('/');
        const name = isFolder ? join(target, source.split('/').at(-1) ?? '') : target;
        cpSync(join(root, source), join(app, name), { recursive: true });
      }
    }
  }

  /** As in the container: nothing of this machine's environment, and an app that it may not write to. */
  function run(args: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
    return spawn(process.execPath, args, {
      cwd: app,
      ...identity,
      env: { NODE_ENV: 'production', LISTEN_HOST: '0.0.0.0', DATA_DIR: data, WEBSOCKET_PORT: String(port), ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  async function ended(child: ChildProcess): Promise<{ code: number; output: string }> {
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (text) => (output += text));
    const [code] = await once(child, 'close');
    return { code, output };
  }

  it('has all that the command line needs', async () => {
    expect(await ended(run(['dist/main.js', '--help']))).toMatchObject({ code: 0 });
  });

  it('refuses to listen in plain text to everybody, and says what to set', async () => {
    const { code, output } = await ended(run(['dist/main.js', 'serve']));
    expect(code).toBe(2);
    expect(output).toContain('TRUST_PROXY');
  });

  it('serves as another user than root, is found healthy, and stops when it is told to', async () => {
    const { databaseUrl } = database;
    const gateway = run(['dist/main.js', 'serve'], {
      TRUST_PROXY: '127.0.0.1',
      ...(databaseUrl ? { DATABASE_URL: databaseUrl } : {}),
    });
    const forgetProcess = reapAtTheEnd({ process: gateway.pid ?? 0, signal: 'SIGKILL' });
    const outcome = ended(gateway);
    await isReady(gateway);
    expect(await ended(run(['deploy/health-check.js']))).toMatchObject({ code: 0 });
    gateway.kill('SIGTERM');
    expect(await outcome).toMatchObject({ code: 0 });
    forgetProcess();
    expect(await ended(run(['deploy/health-check.js']))).toMatchObject({ code: 1 });
  });
});

function isReady(gateway: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let printed = '';
    for (const stream of [gateway.stdout, gateway.stderr])
      stream?.on('data', (text) => {
        printed += text;
        if (printed.includes('is ready')) resolve();
      });
    gateway.once('exit', () => reject(new Error(`it ended before it was ready:\n${printed}`)));
  });
}
