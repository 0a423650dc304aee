import type { AgentProtocol, Enrollment } from './agent.ts';

/** What is known when an agent shows a key. */
export interface KeyQuestion {
  readonly protocol: AgentProtocol;
  readonly shownFingerprint: string;
  readonly enrollment: Enrollment;
  readonly recordedFingerprint: string;
  readonly recordedProtocol: AgentProtocol;
  /** The agent has been trusted on v2. */
  readonly refusesV1: boolean;
  /** An operator has allowed one new key (`resetAgentKey`). */
  readonly keyReset: boolean;
  /**
   * Somebody who may do so speaks for the key: on v1 a bootstrap token that was issued to a key that was approved; on v2 an
   * enrolment token that is good for this agent, or the key on record, which named it as the next one.
   */
  readonly vouched: boolean;
  readonly keyChange: 'quarantine' | 'replace' | 'refuse';
}

/**
 * `trust`: the shown key becomes the one on record, and the agent is approved. `adopt`: it becomes the one on record, and
 * the agent stays as it is. `pend`: it waits beside the one on record.
 */
export type KeyDecision = 'known' | 'trust' | 'adopt' | 'pend' | 'refuse' | 'refuse-v1' | 'revoked';

/** What becomes of a key that is shown under a known name (requirements.md, "Trust"). */
export function decideKey(question: KeyQuestion): KeyDecision {
  const isKnown = question.shownFingerprint === question.recordedFingerprint;
  const isPending = question.enrollment === 'pending';
  if (question.enrollment === 'revoked' && (isKnown || !question.keyReset)) return 'revoked';
  if (question.protocol === 'v1' && question.refusesV1) return 'refuse-v1';
  if (isKnown) return isPending && question.vouched ? 'trust' : 'known';
  if (question.keyReset) return isPending ? 'adopt' : 'trust';
  if (question.vouched) return 'trust';
  // A stranger on v2 must not get in the way of whoever speaks v1 under the name, trusted or not.
  if (question.protocol === 'v2') return 'pend';
  // Nobody has approved the key on record either; v1 agents make a new one at each start, and the newest is the one in use.
  if (isPending) return question.recordedProtocol === 'v1' ? 'adopt' : 'pend';
  return ({ quarantine: 'pend', replace: 'adopt', refuse: 'refuse' } as const)[question.keyChange];
}
