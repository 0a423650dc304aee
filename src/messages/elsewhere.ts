import type { Bus, MessageChange } from '../bus/bus.ts';
import type { Message } from './message.ts';

/** Messages that other gateways have changed, read from the database where anybody here wants to know. */
export interface Elsewhere {
  /** Reads these messages and has them heard. Never rejects. */
  read(ids: Iterable<string>): void;
  stop(): void;
}

const maxAtOnce = 200;
/** Beyond so many nobody catches up by reading one by one: whoever follows finds the rest by its next look. */
const maxWanted = 10_000;

export function createElsewhere(deps: {
  readonly bus: Bus;
  readonly findAll: (ids: readonly string[]) => Promise<readonly Message[]>;
  readonly isWanted: (change: MessageChange) => boolean;
  readonly hear: (messages: readonly Message[]) => void;
  readonly logError: (error: unknown, context: string) => void;
}): Elsewhere {
  /** Gathered while a statement is under way. */
  const wanted = new Set<string>();
  let isReading = false;

  async function readOn(): Promise<void> {
    isReading = true;
    try {
      while (wanted.size > 0) {
        const ids = [...wanted].slice(0, maxAtOnce);
        for (const id of ids) wanted.delete(id);
        deps.hear(await deps.findAll(ids));
      }
    } catch (error) {
      deps.logError(error, 'messages that another gateway has changed could not be read');
    } finally {
      isReading = false;
    }
  }

  function read(ids: Iterable<string>): void {
    for (const id of ids) if (wanted.size < maxWanted) wanted.add(id);
    if (wanted.size > 0 && !isReading) void readOn();
  }

  const stop = deps.bus.subscribe('changed', (changes) => read(changes.filter(deps.isWanted).map(({ id }) => id)));
  return { read, stop };
}
