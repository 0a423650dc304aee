import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';

// Mends postgres.js 3.4.9, of which no release is better; run by npm after each install (docs/RELIABILITY.md, "The driver").
// Fails where the text to mend is not there: then look whether a newer version needs it still.

/** In which of its files, each text, and what takes its place. */
const mends = [
  [
    'connection.js',
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
    'connection.js',
    // A connection that closes with something still to write would never write again, its greeting included.
    '    clearImmediate(nextWriteTimer)\n    socket.removeListener',
    '    clearImmediate(nextWriteTimer)\n    chunk = nextWriteTimer = null\n    socket.removeListener',
  ],
  [
    'connection.js',
    // Nobody waits for what each connection asks first: one that ends meanwhile would end the process.
    '        return fetchArrayTypes()\n',
    '        return fetchArrayTypes().catch(() => {})\n',
  ],
  // A statement whose server is gone without a word would wait for a quarter of an hour: `answer_timeout`, in seconds.
  ['index.js', '    connect_timeout : 30,\n', '    connect_timeout : 30,\n    answer_timeout  : null,\n'],
  [
    'connection.js',
    '      , connectTimer = timer(connectTimedOut, options.connect_timeout)\n',
    `      , connectTimer = timer(connectTimedOut, options.connect_timeout)
      , answerTimer = timer(() => socket && socket.destroy(), options.answer_timeout)
`,
  ],
  [
    'connection.js',
    '        : (query = q, query.active = true)\n',
    '        : (query = q, query.active = true, answerTimer.start())\n',
  ],
  [
    'connection.js',
    '    connectTimer.cancel()\n\n    if (initial) {',
    '    connectTimer.cancel()\n    answerTimer.cancel()\n\n    if (initial) {',
  ],
  [
    'connection.js',
    '    if (query)\n      return // Consider opening if able and sent.length < 50',
    '    if (query)\n      return answerTimer.start()',
  ],
  [
    'connection.js',
    '    connectTimer.cancel()\n\n    socket.removeAllListeners()',
    '    connectTimer.cancel()\n    answerTimer.cancel()\n\n    socket.removeAllListeners()',
  ],
  [
    'connection.js',
    // A connection that was given up must not keep the process: its peer may never close it.
    "      socket.readyState === 'open' && socket.end(b().X().end())\n",
    "      socket.readyState === 'open' && socket.end(b().X().end())\n      socket && socket.unref && socket.unref()\n",
  ],
];

const entry = createRequire(import.meta.url).resolve('postgres');
for (const [name = '', before = '', after = ''] of mends) {
  const file = entry.replace('/cjs/src/index.js', `/src/${name}`);
  const text = readFileSync(file, 'utf8');
  if (text.includes(after)) continue;
  if (!text.includes(before)) throw new Error(`${file} is not as it was when it had to be mended`);
  writeFileSync(file, text.replace(before, after));
}
