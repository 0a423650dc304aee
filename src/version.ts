import { readFileSync } from 'node:fs';
import { z } from 'zod';

/** The package's version; `package.json` stands two folders above this module's, from source and when built. */
export const gatewayVersion = z
  .object({ version: z.string() })
  .parse(JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))).version;
