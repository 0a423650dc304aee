import { commandLine } from '../../access/consumer.ts';
import {
  type GatewayKeys,
  type KeyLocation,
  prepareNextKey,
  promoteNextKey,
  readKeys,
} from '../../agent-gateway/key-files.ts';
import { recordKeyChange } from '../../audit/key-record.ts';
import type { Config } from '../../config.ts';
import { openDatabase } from '../../db/database.ts';
import { migrate } from '../../db/migrate.ts';

/** Shows, prepares or rotates the gateway's own keys, by their fingerprints. A running gateway takes them over at SIGHUP. */
export async function ownKeys(action: 'show' | 'prepare' | 'rotate', config: Config): Promise<number> {
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
    await putOnRecord('gateway-key.prepare', location, config);
    return 0;
  }
  promoteNextKey(location);
  tell(readKeys(location));
  say('Send SIGHUP to every gateway that has these files. Links that are open keep the old key to their end.');
  await putOnRecord('gateway-key.rotate', location, config);
  return 0;
}

/**
 * The embedded database belongs to the gateway that runs, which records the keys that it loads. Keys are exchanged in a hurry at
 * times: that the record cannot be written is told, and undoes nothing.
 */
async function putOnRecord(
  action: 'gateway-key.prepare' | 'gateway-key.rotate',
  location: KeyLocation,
  config: Config,
): Promise<void> {
  if (!config.databaseUrl) return;
  const { current, next } = readKeys(location);
  try {
    const database = await openDatabase(config);
    try {
      await migrate(database);
      const keys = { current: current.fingerprint, next: next?.fingerprint ?? null };
      await recordKeyChange(database, commandLine, action, keys);
    } finally {
      await database.close();
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    process.stderr.write(`This could not be put on record: ${reason}\n`);
  }
}

function tell({ current, next }: GatewayKeys): void {
  say(`current  ${current.fingerprint}`);
  say(`next     ${next?.fingerprint ?? 'none'}`);
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}
