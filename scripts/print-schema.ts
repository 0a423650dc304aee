/** Writes `schema.graphql`: the consumers' schema as it is built. */
import { writeFile } from 'node:fs/promises';
import { printSchema } from 'graphql';
import { buildSchema } from '../src/schema/schema.ts';

await writeFile(new URL('../schema.graphql', import.meta.url), `${printSchema(buildSchema())}\n`);
