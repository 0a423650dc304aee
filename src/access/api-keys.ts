import type { Page, PageRequest } from '../paging.ts';
import type { Consumer, Permission } from './consumer.ts';

/** Longest life of a key that has an end. */
export const maxKeyLifeSeconds = 3_650 * 24 * 3_600;

export type ApiKeyState = 'usable' | 'expired' | 'revoked';

/** An API key, as administrators see it: the key itself is shown once and never kept. */
export interface ApiKey {
  readonly id: string;
  /** With which the key begins, up to its secret. */
  readonly prefix: string;
  readonly name: string;
  /** Null: every organisation. */
  readonly orgId: string | null;
  readonly permissions: readonly Permission[];
  readonly state: ApiKeyState;
  readonly createdAt: Date;
  /** The label of whoever made it. */
  readonly createdBy: string;
  readonly expiresAt: Date | null;
  /** Within half a minute; null: never. */
  readonly lastUsedAt: Date | null;
  readonly revokedAt: Date | null;
  /** Rises with each key. */
  readonly sequence: number;
}

export interface NewApiKey {
  /** 1 to 255 characters. */
  readonly name: string;
  /** One or more. */
  readonly permissions: readonly string[];
  /** Of one organisation; the consumer's own where absent, DEFAULT_ORG where it has none. */
  readonly orgId?: string | undefined;
  /** Of every organisation, in place of one. */
  readonly allOrganisations?: boolean | undefined;
  /** 1 to `maxKeyLifeSeconds`; without an end where absent. */
  readonly expiresInSeconds?: number | undefined;
}

/** How administrators give consumers access. Keys outside the scope do not exist. */
export interface ApiKeys {
  /**
   * Makes a key. `secret` is what the consumer shows: `agk_`, the prefix, and 43 characters that nobody can guess.
   * Throws BAD_USER_INPUT, and FORBIDDEN where the key would reach further than whoever makes it.
   */
  create(consumer: Consumer, key: NewApiKey): Promise<{ readonly secret: string; readonly key: ApiKey }>;

  /** The newest first. */
  page(consumer: Consumer, request: PageRequest): Promise<Page<ApiKey>>;

  count(consumer: Consumer): Promise<number>;

  /** Place in `page`'s list, for a connection's edges. */
  cursorOf(key: ApiKey): string;

  /** Makes it good for nothing, and ends what runs with it within seconds, everywhere. Throws NOT_FOUND. */
  revoke(consumer: Consumer, id: string): Promise<ApiKey>;
}
