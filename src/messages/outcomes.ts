import { setImmediate as turn } from 'node:timers/promises';
import type { Message } from './message.ts';
import type { Settlement, Transitions } from './transitions.ts';

/** What became of a claimed message: what its link found out, or that the link could not carry it after all. */
export type Outcome = 'read' | 'unread' | 'refused' | 'unwritten';

/** Writes down what became of claimed messages, those of many links in one statement, and keeps what is not written yet. */
export interface Outcomes {
  /** Resolves once the database knows; never rejects. While the database fails, `retry` is what tries again. */
  settle(outcome: Outcome, settlement: Settlement): Promise<void>;
  /** Writes what could not be written before. Never rejects. */
  retry(): Promise<void>;
}

interface Waiting {
  readonly settlement: Settlement;
  readonly written: () => void;
}

const maxAtOnce = 1_000;
const maxBytesAtOnce = 8 * 1024 * 1024;

export function createOutcomes(deps: {
  readonly transitions: Transitions;
  readonly publish: (changed: readonly Message[]) => void;
  readonly logError: (error: unknown, context: string) => void;
}): Outcomes {
  const { transitions, publish } = deps;
  const waiting: Record<Outcome, Waiting[]> = { read: [], unread: [], refused: [], unwritten: [] };
  const write: Record<Outcome, (settlements: readonly Settlement[]) => Promise<Message[]>> = {
    read: transitions.confirm,
    unread: transitions.giveUp,
    refused: transitions.refuse,
    unwritten: transitions.release,
  };
  const order = ['read', 'refused', 'unwritten', 'unread'] as const;
  let isWriting = false;

  async function retry(): Promise<void> {
    if (isWriting) return;
    isWriting = true;
    try {
      // One pong settles many messages, and many pongs are read in one turn: they go together.
      await turn();
      for (let next = nextOutcome(); next; next = nextOutcome()) {
        const batch = firstOf(waiting[next]);
        publish(await write[next](batch.map(({ settlement }) => settlement)));
        waiting[next].splice(0, batch.length);
        for (const { written } of batch) written();
      }
    } catch (error) {
      deps.logError(error, 'the outcome of messages could not be written; it will be tried again');
    } finally {
      isWriting = false;
    }
  }

  function nextOutcome(): Outcome | undefined {
    return order.find((outcome) => waiting[outcome].length > 0);
  }

  return {
    settle(outcome, settlement) {
      return new Promise((written) => {
        waiting[outcome].push({ settlement, written });
        void retry();
      });
    },
    retry,
  };
}

/** As many as one statement takes, and one at least. */
function firstOf(waiting: readonly Waiting[]): Waiting[] {
  let bytes = 0;
  const end = waiting.slice(0, maxAtOnce).findIndex(({ settlement }) => {
    bytes += settlement.frame?.encryptedPayload.length ?? 0;
    return bytes > maxBytesAtOnce;
  });
  return waiting.slice(0, end < 0 ? maxAtOnce : Math.max(1, end));
}
