import type { Bus } from '../bus/bus.ts';
import { type Clock, poll } from '../clock.ts';
import type { Consumer } from './consumer.ts';
import { hasExpired } from './remembered.ts';

/** Watches over the credentials of those who stay connected. */
export interface Validity {
  /** Calls `onEnded` once, within seconds, when the credentials have expired or are revoked; the returned function stops that. */
  watch(consumer: Consumer, onEnded: () => void): () => void;
  /** Ends whoever was let in by a token: the key that signed it may be good for nothing any more, and they can show it anew. */
  endTokens(): void;
  start(): void;
  stop(): void;
}

interface Watch {
  readonly consumer: Consumer;
  readonly onEnded: () => void;
}

const expiryIntervalMs = 500;
/** How soon a revocation is found that nobody told of. */
const lookIntervalMs = 2_000;

export function createValidity(deps: {
  readonly bus: Bus;
  readonly clock: Clock;
  /** What time it is. */
  readonly wall: Pick<Clock, 'now'>;
  /** Those of the keys with these ids that may be used. */
  readonly usable: (ids: readonly string[]) => Promise<readonly string[]>;
  readonly logError: (error: unknown, context: string) => void;
}): Validity {
  const { bus, clock, wall } = deps;
  const watches = new Set<Watch>();
  const releases: (() => void)[] = [];

  function endWhere(isOver: (consumer: Consumer) => boolean): void {
    for (const watch of [...watches]) if (isOver(watch.consumer) && watches.delete(watch)) watch.onEnded();
  }

  async function look(): Promise<void> {
    const watched = [...watches].map(({ consumer }) => consumer).filter(({ kind }) => kind === 'api-key');
    const ids = new Set(watched.map(({ id }) => id));
    if (ids.size === 0) return;
    const usable = new Set(await deps.usable([...ids]));
    endWhere(({ kind, id }) => kind === 'api-key' && ids.has(id) && !usable.has(id));
  }

  return {
    watch(consumer, onEnded) {
      const watch = { consumer, onEnded };
      watches.add(watch);
      return () => void watches.delete(watch);
    },
    endTokens: () => endWhere(({ kind }) => kind === 'jwt'),
    start() {
      const looking = poll(clock, lookIntervalMs, look, (error) =>
        deps.logError(error, 'whether API keys are still good could not be asked'),
      );
      releases.push(
        looking.stop,
        bus.subscribe('missed', looking.now),
        bus.subscribe('credentials', ({ revoked }) =>
          endWhere(({ kind, id }) => kind === 'api-key' && revoked.includes(id)),
        ),
        clock.every(expiryIntervalMs, () => endWhere((consumer) => hasExpired(consumer, wall))),
      );
    },
    stop() {
      for (const release of releases.splice(0)) release();
    },
  };
}
