import { type DestinationStream, destination, type Logger, pino } from 'pino';
import type { Config } from '../config.ts';

export type { Logger };

/** Whatever is called by one of these names is a secret, as deep as a log line goes. */
const secretNames = [
  'authorization',
  'Authorization',
  'cookie',
  'token',
  'session_token',
  'sessionToken',
  'bootstrap_token',
  'bootstrapToken',
  'x-bootstrap-token',
  'privateKey',
  'private_key',
  'adminToken',
  'ADMIN_TOKEN',
  'password',
  'databaseUrl',
  'DATABASE_URL',
  'sentinelPassword',
  'REDIS_URL',
];
const depths = ['', '*.', '*.*.', '*.*.*.'];

/** Paths as pino takes them; a name that is no identifier goes into brackets. */
const secretPaths = depths.flatMap((depth) =>
  secretNames.map((name) => (/^\w+$/.test(name) ? `${depth}${name}` : `${depth.slice(0, -1)}["${name}"]`)),
);

/** The structured log: JSON lines on standard error, secrets redacted. */
export function createLog(level: Config['logLevel'], destinationStream: DestinationStream = standardError()): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: secretPaths, censor: '[redacted]' },
    },
    destinationStream,
  );
}

function standardError(): DestinationStream {
  return destination({ fd: 2, sync: false });
}
