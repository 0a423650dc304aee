import type { Scope } from '../access/scope.ts';
import type { Changer } from '../audit/actor.ts';
import type { Page, PageRequest } from '../paging.ts';

/** Longest life of a token. */
export const maxTokenLifeSeconds = 30 * 24 * 3_600;

export type EnrollmentTokenState = 'usable' | 'used' | 'expired' | 'revoked';

/** A single-use token with which a v2 agent enrols, as operators see it: the secret itself is shown once and never kept. */
export interface EnrollmentToken {
  readonly id: string;
  readonly orgId: string;
  /** The name that it was made for: it is good for that name alone, also where the name is known. Null: any new name. */
  readonly agentName: string | null;
  readonly note: string | null;
  readonly state: EnrollmentTokenState;
  readonly createdAt: Date;
  readonly expiresAt: Date;
  readonly usedAt: Date | null;
  /** Uid of the agent that used it. */
  readonly usedBy: string | null;
  readonly revokedAt: Date | null;
  /** Rises with each token. */
  readonly sequence: number;
}

export interface NewEnrollmentToken {
  /** The scope's organisation where absent, DEFAULT_ORG where the scope has none. */
  readonly orgId?: string | undefined;
  readonly agentName?: string | undefined;
  readonly note?: string | undefined;
  /** 1 to `maxTokenLifeSeconds`. */
  readonly expiresInSeconds: number;
}

/** How operators let v2 agents enrol. Tokens outside the scope do not exist. */
export interface EnrollmentTokens {
  /** Makes a token. `secret` is what the agent shows: `enr_` and 43 characters. Throws FORBIDDEN for a foreign organisation. */
  create(by: Changer, token: NewEnrollmentToken): Promise<{ readonly secret: string; readonly token: EnrollmentToken }>;

  /** The newest first. */
  page(scope: Scope, request: PageRequest): Promise<Page<EnrollmentToken>>;

  count(scope: Scope): Promise<number>;

  /** Place in `page`'s list, for a connection's edges. */
  cursorOf(token: EnrollmentToken): string;

  /** Makes it useless; what was enrolled with it stays. Throws NOT_FOUND. */
  revoke(by: Changer, id: string): Promise<EnrollmentToken>;
}
