import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

// Mends postgres.js 3.4.9, of which no release is better; run by npm after each install (docs/RELIABILITY.md, "The driver").
// Fails where the text to mend is not there: then look whether a newer version needs it still.

/** Each text, and what takes its place. */
const mends = [
  [
    // A transaction whose connection is gone rolls back on it: the throw out of a timer would end the process.
    '    const x = socket.write(chunk, fn)\n',
    `    if (!socket) {
      chunk = nextWriteTimer = null
      error(Errors.connection('CONNECTION_CLOSED', options, socket))
      return false
    }
    const x = socket.write(chunk, fn)
`,
  ],
  [
    // A connection that closes with something still to write would never write again, its greeting included.
    '    clearImmediate(nextWriteTimer)\n    socket.removeListener',
    '    clearImmediate(nextWriteTimer)\n    chunk = nextWriteTimer = null\n    socket.removeListener',
  ],
];

const file = createRequire(import.meta.url)
  .resolve('postgres')
  .replace('/cjs/src/index.js', '/src/connection.js');
let text = readFileSync(file, 'utf8');
for (const [before = '', after = ''] of mends) {
  if (text.includes(after)) continue;
  if (!text.includes(before)) throw new Error(`${file} is not as it was when it had to be mended`);
  text = text.replace(before, after);
}
writeFileSync(file, text);
