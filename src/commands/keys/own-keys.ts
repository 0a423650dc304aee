import {
  type GatewayKeys,
  type KeyLocation,
  prepareNextKey,
  promoteNextKey,
  readKeys,
} from '../../agent-gateway/key-files.ts';
import type { Config } from '../../config.ts';

/** Shows, prepares or rotates the gateway's own keys, by their fingerprints. A running gateway takes them over at SIGHUP. */
export function ownKeys(action: 'show' | 'prepare' | 'rotate', config: Config): number {
  const location: KeyLocation = { files: config.identity, dataDir: config.dataDir };
  if (action === 'show') {
    tell(readKeys(location));
    return 0;
  }
  if (action === 'prepare') {
    readKeys(location);
    prepareNextKey(location);
    tell(readKeys(location));
    say(
      'Send SIGHUP to every gateway that has these files. It tells the agents that are connected, and each that connects.',
    );
    say('Rotate when every agent has been connected since: one that has not would not know the new key.');
    return 0;
  }
  promoteNextKey(location);
  tell(readKeys(location));
  say('Send SIGHUP to every gateway that has these files. Links that are open keep the old key to their end.');
  return 0;
}

function tell({ current, next }: GatewayKeys): void {
  say(`current  ${current.fingerprint}`);
  say(`next     ${next?.fingerprint ?? 'none'}`);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
