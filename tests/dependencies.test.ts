import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';

const lock = z
  .object({
    packages: z.record(
      z.string(),
      z.looseObject({ hasInstallScript: z.boolean().optional(), dev: z.boolean().optional() }),
    ),
  })
  .parse(JSON.parse(readFileSync('package-lock.json', 'utf8')));

describe('docs/SECURITY.md', () => {
  const told = readFileSync('docs/SECURITY.md', 'utf8');
  const running = Object.entries(lock.packages).filter(([, { hasInstallScript }]) => hasInstallScript);
  const nameOf = (path: string) => (path === '' ? 'aegis-gateway' : path.slice(path.lastIndexOf('node_modules/') + 13));

  it('names every package that runs a program when it is installed, and no other', () => {
    const [, table = ''] = /\| package \| why \|\n\|---\|---\|\n((?:\|.*\n)+)/.exec(told) ?? [];
    const named = [...table.matchAll(/^\| `([^`]+)` \|/gm)].map(([, name]) => name);
    expect(named.sort()).toEqual([...new Set(running.map(([path]) => nameOf(path)))].sort());
  });

  it('says which of them the gateway runs without', () => {
    const needed = running.filter(([path, { dev }]) => path !== '' && !dev);
    expect(needed).toEqual([]);
    expect(told.match(/development alone/g)).toHaveLength(2);
  });
});

const advisory = (severity: string) => ({
  postgres: [{ id: 1, title: 'a fault', url: 'https://example.com', severity, vulnerable_versions: '*' }],
});

/** What `scripts/audit.js` says of a registry that answers its question like this. */
async function audited(status: number, answer: unknown): Promise<{ code: number | null; output: string }> {
  const server = createServer((request, response) => {
    const isQuestion = request.method === 'POST';
    request.resume();
    response.writeHead(isQuestion ? status : 200, { 'content-type': 'application/json' });
    const name = decodeURIComponent((request.url ?? '').slice(1));
    response.end(JSON.stringify(isQuestion ? answer : { name, versions: {}, 'dist-tags': {} }));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address: AddressInfo | string | null = server.address();
  if (typeof address !== 'object' || !address) throw new Error('no port');
  const cache = mkdtempSync(join(tmpdir(), 'aegis-audit-'));
  const env = {
    ...process.env,
    ...{
      npm_config_registry: `http://127.0.0.1:${address.port}/`,
      npm_config_cache: cache,
      npm_config_fetch_retries: '0',
    },
  };
  const child = spawn(process.execPath, ['scripts/audit.js'], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (text) => (output += text));
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  server.close();
  rmSync(cache, { recursive: true, force: true });
  return { code, output };
}

describe('the question for known faults', { timeout: 120_000 }, () => {
  it.concurrent.each([
    ['passes what is moderate', 200, advisory('moderate'), 0, '0 of them high or critical\n  moderate'],
    ['fails for what is high', 200, advisory('high'), 1, 'of them high or critical\n  high'],
    ['is no failure where the registry takes none', 405, '', 0, 'npm audit was not run: 405'],
  ])('%s', async (_what, status, answer, code, beginning) => {
    const told = await audited(status, answer);
    expect(told).toEqual({ code, output: expect.stringContaining(beginning) });
  });
});
