import { fileURLToPath } from 'node:url';
import { build } from './build.js';

// `npm start`: builds where the sources have changed, then runs the gateway in this very process, so that signals reach it.

if (build()) process.stdout.write('Built.\n');
/** A URL, so that the type checker does not follow it into what was compiled. */
const entry = new URL('../dist/main.js', import.meta.url);
// Workers run the gateway alone: a second build while another runs would take its files from under it.
process.argv[1] = fileURLToPath(entry);
await import(entry.href);
