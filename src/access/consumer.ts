import type { Changer } from '../audit/actor.ts';
import { AegisError } from '../errors.ts';

/** What credentials may permit. `admin` permits all the others, within its organisation. */
export const permissions = [
  'agents:read',
  'agents:manage',
  'events:read',
  'messages:send',
  'messages:read',
  'audit:read',
  'admin',
] as const;

export type Permission = (typeof permissions)[number];

/**
 * What something asks of a consumer: a permission, `authenticated` where any credentials will do, or `operator`: `admin` of
 * all organisations, for what is of none of them.
 */
export type Need = Permission | 'authenticated' | 'operator';

/**
 * A person's console or a service, once its credentials were found good. Wherever a part is told a scope it is told the
 * consumer itself, so that whoever changes something is known there.
 */
export interface Consumer extends Changer {
  readonly kind: 'admin-token' | 'command-line' | 'api-key' | 'jwt';
  readonly permissions: ReadonlySet<Permission>;
  /** From then on the credentials are good for nothing; null: for good. */
  readonly expiresAt: Date | null;
}

const everything: ReadonlySet<Permission> = new Set(permissions);

/** Whoever shows `ADMIN_TOKEN`. */
export const adminToken: Consumer = {
  ...{ id: 'ADMIN_TOKEN', kind: 'admin-token', label: 'ADMIN_TOKEN' },
  ...{ orgId: null, permissions: everything, expiresAt: null },
};

/** Whoever may run the command line beside the database. */
export const commandLine: Consumer = {
  ...{ id: 'command line', kind: 'command-line', label: 'the command line' },
  ...{ orgId: null, permissions: everything, expiresAt: null },
};

export function isNeed(value: unknown): value is Need {
  return value === 'authenticated' || value === 'operator' || permissions.some((permission) => permission === value);
}

export function isPermission(text: string): text is Permission {
  return permissions.some((permission) => permission === text);
}

export function meets({ orgId, permissions: held }: Consumer, need: Need): boolean {
  if (need === 'authenticated') return true;
  if (need === 'operator') return orgId === null && held.has('admin');
  return held.has(need) || held.has('admin');
}

/** Throws FORBIDDEN that names what is missing. */
export function requirePermission(consumer: Consumer, need: Need): void {
  if (!meets(consumer, need)) throw new AegisError('FORBIDDEN', `This needs ${wordsOf(need)}`);
}

function wordsOf(need: Need): string {
  return need === 'operator' ? 'the scope admin, of all organisations' : `the scope ${need}`;
}
