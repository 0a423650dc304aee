import { spawn } from 'node:child_process';

// Everything that must be true before a commit: types, lint, boundaries, drift. All run, and all that fail are named.

const checks = ['check:types', 'check:lint', 'check:boundaries', 'check:drift'];

/** @param {string} name @returns {Promise<{ name: string, ok: boolean, output: string }>} */
function run(name) {
  return new Promise((resolve) => {
    const child = spawn('npm', ['run', '--silent', name], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (text) => (output += text));
    child.stderr.on('data', (text) => (output += text));
    child.on('close', (code) => resolve({ name, ok: code === 0, output }));
  });
}

const results = [];
for (const name of checks) {
  const result = await run(name);
  results.push(result);
  process.stdout.write(`${result.ok ? 'ok    ' : 'FAILED'} ${name}\n${result.ok ? '' : `${result.output}\n`}`);
}
process.exit(results.every(({ ok }) => ok) ? 0 : 1);
