import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { run, scratchFolder } from './command-line.ts';

describe('the command line', () => {
  it.each(['help', '--help'])('explains itself for %s', async (argument) => {
    const help = run([argument]);
    expect([await help.ended, help.stderr]).toEqual([0, '']);
    for (const command of ['serve', 'migrate', 'demo', 'simulate']) expect(help.stdout).toContain(`\n  ${command} `);
  });

  it('explains itself for a command that there is not, and ends with 2', async () => {
    const unknown = run(['sreve']);
    expect([await unknown.ended, unknown.stdout]).toEqual([2, '']);
    expect(unknown.stderr).toContain('Usage: aegis-gateway');
  });

  it('names every variable that is wrong in one message, and ends with 2', async () => {
    const serve = run([], { WEBSOCKET_PORT: '99999', SESSION_TIMEOUT: 'soon', TLS_CERT_PATH: 'package.json' });
    expect([await serve.ended, serve.stdout]).toEqual([2, '']);
    for (const name of ['WEBSOCKET_PORT', 'SESSION_TIMEOUT', 'TLS_KEY_PATH'])
      expect(serve.stderr).toContain(`  ${name}: `);
    expect(serve.stderr).not.toContain(' at ');
  });

  it('tells key files that are none in a sentence, and ends with 2', async () => {
    const folder = scratchFolder();
    const env = {
      AUTH_PRIVATE_KEY_PATH: join(folder, 'private.pem'),
      AUTH_PUBLIC_KEY_PATH: join(folder, 'public.pem'),
    };
    for (const path of Object.values(env)) writeFileSync(path, 'not a key');
    const serve = run(['serve'], { ...env, DATA_DIR: 'memory' });
    expect(await serve.ended).toBe(2);
    expect(serve.stderr).toBe(`${env.AUTH_PRIVATE_KEY_PATH} cannot be read as a PEM key\n`);
  });
});
