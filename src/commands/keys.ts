import type { Config } from '../config.ts';
import { createKey, listKeys, revokeKey } from './keys/api-keys.ts';
import { ownKeys } from './keys/own-keys.ts';

const usage = `Usage: aegis-gateway keys <command>

  API keys, with which consumers show who they are (docs/ACCESS.md)
    create      --name … --scopes agents:read,… [--org … | --all-organisations] [--expires-in <seconds>]
                writes the key to standard output, where alone it is ever seen
    list        every key, the newest first
    revoke      <id>

  The gateway's own keys, which v2 agents pin (docs/OPERATIONS.md)
    show        their fingerprints
    prepare     makes the next one
    rotate      puts the next one in the place of the current one
`;

/** `keys …`: those of consumers, in the database, and the gateway's own, in files. */
export async function keysFromArguments(args: readonly string[], config: Config): Promise<number> {
  const [action = 'show', ...rest] = args;
  switch (action) {
    case 'create':
      return createKey(rest, config);
    case 'list':
      return rest.length === 0 ? listKeys(config) : misused();
    case 'revoke':
      return rest.length === 1 ? revokeKey(rest[0] ?? '', config) : misused();
    case 'show':
    case 'prepare':
    case 'rotate':
      return rest.length === 0 ? ownKeys(action, config) : misused();
    default:
      return misused();
  }
}

function misused(): number {
  process.stderr.write(usage);
  return 2;
}
