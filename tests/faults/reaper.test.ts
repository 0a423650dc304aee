import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished } from 'vitest';
import { eventually } from '../support/eventually.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

/** A process that has these reaped and then waits to be killed. */
async function startOwner(pid: number, folder: string, keptFolder: string) {
  const script = `
    const { reapAtTheEnd } = await import('./tests/faults/reaper.ts');
    reapAtTheEnd({ process: ${pid}, signal: 'SIGKILL' });
    reapAtTheEnd({ folder: ${JSON.stringify(folder)} });
    reapAtTheEnd({ folder: ${JSON.stringify(keptFolder)} })();
    setInterval(() => {}, 1_000);
    process.stdout.write('owns');`;
  const owner = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', script], { cwd: root });
  await once(owner.stdout, 'data');
  return owner;
}

it('ends the processes and removes the folders of a test that was killed, and nothing that it had let go of', async () => {
  const [folder = '', kept = ''] = [1, 2].map(() => mkdtempSync(join(tmpdir(), 'aegis-reaper-')));
  const orphan = spawn(process.execPath, ['--eval', 'setInterval(() => {}, 1_000)']);
  onTestFinished(() => void orphan.kill());
  const ended = once(orphan, 'exit');
  const owner = await startOwner(orphan.pid ?? 0, folder, kept);
  owner.kill('SIGKILL');
  expect(await ended).toEqual([null, 'SIGKILL']);
  await eventually(() => !existsSync(folder));
  expect(existsSync(kept)).toBe(true);
  rmSync(kept, { recursive: true });
});
