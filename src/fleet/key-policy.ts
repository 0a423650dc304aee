import type { Enrollment } from './agent.ts';

/** What is known when an agent shows a key. */
export interface KeyQuestion {
  readonly enrollment: Enrollment;
  readonly recordedFingerprint: string;
  readonly shownFingerprint: string;
  /** An operator has allowed one new key (`resetAgentKey`). */
  readonly keyReset: boolean;
  /** A bootstrap token that was issued to a key that was approved came along. */
  readonly vouched: boolean;
  readonly keyChange: 'quarantine' | 'replace' | 'refuse';
}

/** `adopt`: the shown key becomes the one on record. `pend`: it waits beside it. */
export type KeyDecision = 'known' | 'adopt' | 'pend' | 'refuse' | 'revoked';

/** What becomes of a key that is shown under a known name (requirements.md, "Trust"). */
export function decideKey(question: KeyQuestion): KeyDecision {
  const isKnown = question.shownFingerprint === question.recordedFingerprint;
  if (question.enrollment === 'revoked' && (isKnown || !question.keyReset)) return 'revoked';
  if (isKnown) return 'known';
  if (question.keyReset) return 'adopt';
  // Nobody has approved the key on record either; agents make a new one at each start, and the newest is the one in use.
  if (question.enrollment === 'pending') return 'adopt';
  if (question.vouched) return 'adopt';
  return ({ quarantine: 'pend', replace: 'adopt', refuse: 'refuse' } as const)[question.keyChange];
}
