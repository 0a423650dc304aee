import { destination, type Logger, pino } from 'pino';
import type { Config } from '../config.ts';

export type { Logger };

/** Whatever is called by one of these names is a secret, wherever it stands in a log line. */
const secretNames = [
  'authorization',
  'token',
  'session_token',
  'sessionToken',
  'bootstrap_token',
  'bootstrapToken',
  'privateKey',
  'adminToken',
  'password',
];

/** The structured log: JSON lines on standard error, secrets redacted. */
export function createLog(level: Config['logLevel']): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: secretNames.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]), censor: '[redacted]' },
    },
    destination({ fd: 2, sync: false }),
  );
}
