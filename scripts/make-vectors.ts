import { writeFileSync } from 'node:fs';
import { makeVectors } from './v2-vectors.ts';

// Writes tests/vectors/aegis-v2.json; `npm run check:drift` holds the file to it.

writeFileSync(new URL('../tests/vectors/aegis-v2.json', import.meta.url), makeVectors());
