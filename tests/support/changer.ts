import type { Changer } from '../../src/audit/actor.ts';

/** Somebody who may change what is of this organisation; null: of any. */
export function changerOf(orgId: string | null): Changer {
  return { kind: 'api-key', id: 'key-of-a-test', label: 'a test', orgId };
}
