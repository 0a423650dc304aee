import {
  type GatewayKeys,
  type KeyLocation,
  prepareNextKey,
  promoteNextKey,
  readKeys,
} from '../agent-gateway/key-files.ts';
import type { Config } from '../config.ts';

/** `keys list | prepare | rotate`: the gateway's own keys, by their fingerprints. A running gateway takes them over at SIGHUP. */
export function keysFromArguments(args: readonly string[], config: Config): number {
  const [action = 'list', ...rest] = args;
  const location: KeyLocation = { files: config.identity, dataDir: config.dataDir };
  const say = (line: string) => process.stdout.write(`${line}\n`);
  if (rest.length > 0) return misused();
  switch (action) {
    case 'list':
      tell(readKeys(location), say);
      return 0;
    case 'prepare':
      readKeys(location);
      prepareNextKey(location);
      tell(readKeys(location), say);
      say(
        'Send SIGHUP to every gateway that has these files. It tells the agents that are connected, and each that connects.',
      );
      say('Rotate when every agent has been connected since: one that has not would not know the new key.');
      return 0;
    case 'rotate':
      promoteNextKey(location);
      tell(readKeys(location), say);
      say('Send SIGHUP to every gateway that has these files. Links that are open keep the old key to their end.');
      return 0;
    default:
      return misused();
  }
}

function tell({ current, next }: GatewayKeys, say: (line: string) => void): void {
  say(`current  ${current.fingerprint}`);
  say(`next     ${next?.fingerprint ?? 'none'}`);
}

function misused(): number {
  process.stderr.write('Usage: aegis-gateway keys [list | prepare | rotate]\n');
  return 2;
}
