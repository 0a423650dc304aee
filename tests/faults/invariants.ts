import { eventInvariants, eventsAtRest } from './event-invariants.ts';
import type { History, Invariant } from './history.ts';
import { messageInvariants, messagesAtRest } from './message-invariants.ts';

export interface Violation {
  readonly invariant: string;
  readonly detail: string;
}

/** What holds at every moment. */
export const always: Readonly<Record<string, Invariant>> = {
  ...messageInvariants,
  ...eventInvariants,
  'an agent that dials is let in': ({ refusals }) => refusals,

  'an epoch has one owner and never falls': (history) => {
    const latest = new Map<string, { epoch: number; owner: string }>();
    return history.owners.flatMap(({ agent, epoch, instance, session }) => {
      const owner = `${instance} ${session}`;
      const before = latest.get(agent);
      latest.set(agent, { epoch, owner });
      if (!before || epoch > before.epoch || (epoch === before.epoch && owner === before.owner)) return [];
      return [`${agent}: epoch ${before.epoch} of ${before.owner}, then epoch ${epoch} of ${owner}`];
    });
  },
};

/** What holds once nothing has been asked of anyone for a while, every agent is back, and all is up. */
export const atRest: Readonly<Record<string, Invariant>> = { ...messagesAtRest, ...eventsAtRest };

/** Everything that is wrong with a history. */
export function violationsIn(history: History, options: { readonly isAtRest: boolean }): readonly Violation[] {
  const invariants = { ...always, ...(options.isAtRest ? atRest : {}) };
  return Object.entries(invariants).flatMap(([invariant, check]) =>
    check(history).map((detail) => ({ invariant, detail })),
  );
}
