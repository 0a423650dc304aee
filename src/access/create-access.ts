import type { Bus } from '../bus/bus.ts';
import type { Clock } from '../clock.ts';
import type { Database } from '../db/database.ts';
import type { ApiKeys } from './api-keys.ts';
import { type Authenticate, createAuthenticate } from './authenticate.ts';
import { createApiKeys } from './create-api-keys.ts';
import { createTokens, type TokenIssuer } from './json-web-tokens.ts';
import { createValidity, type Validity } from './validity.ts';

/** Who the consumers are: how they are told apart, and how they are given access. */
export interface AccessPart {
  readonly authenticate: Authenticate;
  readonly apiKeys: ApiKeys;
  readonly watch: Validity['watch'];
  /** Reads the keys of the tokens' issuer again. Never rejects. */
  reload(): Promise<void>;
  start(): void;
  stop(): Promise<void>;
}

/** Throws a TokenKeyError where the issuer's key cannot be used. */
export function createAccess(deps: {
  readonly database: Database;
  readonly bus: Bus;
  readonly clock: Clock;
  /** What time it is. */
  readonly wall: Pick<Clock, 'now'>;
  readonly defaultOrg: string;
  readonly adminToken: string | null;
  /** Null: no JSON Web Tokens are taken. */
  readonly tokenIssuer: TokenIssuer | null;
  readonly logError: (error: unknown, context: string) => void;
}): AccessPart {
  const keys = createApiKeys(deps);
  const validity = createValidity({ ...deps, usable: keys.usable });
  const tokens = deps.tokenIssuer
    ? createTokens(deps.tokenIssuer, { ...deps, onKeyWithdrawn: validity.endTokens })
    : null;
  const readers = tokens ? [keys.read, tokens.read] : [keys.read];
  return {
    authenticate: createAuthenticate(deps.adminToken, readers),
    apiKeys: keys.apiKeys,
    watch: validity.watch,
    reload: async () => tokens?.reload(),
    start() {
      keys.start();
      validity.start();
    },
    async stop() {
      validity.stop();
      await keys.stop();
    },
  };
}
