import type { Message } from './message.ts';
import type { ClaimedMessage, Transitions } from './transitions.ts';

/**
 * What became of a message that a link had claimed: `read` by its agent; `unread`, because the link ended or its agent did not
 * answer in time; `unwritten`, because the link could not carry it after all.
 */
export type Outcome = 'read' | 'unread' | 'unwritten';

/** Writes down what became of claimed messages, those of many links in one statement, and keeps what is not written yet. */
export interface Outcomes {
  /** Resolves once the database knows; never rejects. While the database fails, `retry` is what tries again. */
  settle(outcome: Outcome, messages: readonly ClaimedMessage[]): Promise<void>;
  /** Writes what could not be written before. Never rejects. */
  retry(): Promise<void>;
}

interface Settlement {
  readonly message: ClaimedMessage;
  readonly written: () => void;
}

const maxAtOnce = 1_000;

export function createOutcomes(deps: {
  readonly transitions: Transitions;
  readonly publish: (changed: readonly Message[]) => void;
  readonly logError: (error: unknown, context: string) => void;
}): Outcomes {
  const { transitions, publish } = deps;
  const waiting: Record<Outcome, Settlement[]> = { read: [], unread: [], unwritten: [] };
  const write: Record<Outcome, (messages: readonly ClaimedMessage[]) => Promise<Message[]>> = {
    read: transitions.confirm,
    unread: transitions.giveUp,
    unwritten: transitions.release,
  };
  const order = ['read', 'unwritten', 'unread'] as const;
  let isWriting = false;

  async function retry(): Promise<void> {
    if (isWriting) return;
    isWriting = true;
    try {
      for (let next = nextOutcome(); next; next = nextOutcome()) {
        const batch = waiting[next].slice(0, maxAtOnce);
        publish(await write[next](batch.map(({ message }) => message)));
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
    async settle(outcome, messages) {
      const written = messages.map(
        (message) => new Promise<void>((resolve) => waiting[outcome].push({ message, written: resolve })),
      );
      await retry();
      await Promise.all(written);
    },
    retry,
  };
}
