import { build } from './build.js';

// `npm start`: builds where the sources have changed, then runs the gateway in this very process, so that signals reach it.
if (build()) process.stdout.write('Built.\n');
await import('../dist/main.js');
