import type { RateLimiterMemory } from 'rate-limiter-flexible';
import { z } from 'zod';
import type { WorkersChannel } from '../bus/workers-bus.ts';
import type { Clock } from '../clock.ts';
import type { SharedCounts } from './shared-counts.ts';

/** Limit, key, how many more. */
const toldCounts = z.array(z.tuple([z.string(), z.string(), z.number()]));

const tellIntervalMs = 100;

/**
 * The workers of one machine count together: each tells the others ten times a second what it has counted, and they add that to
 * their own counts. So a limit holds over all of them but for what comes within that time.
 */
export function createToldCounts(
  channel: Pick<WorkersChannel, 'tell' | 'onTold'>,
  { clock, logError }: { readonly clock: Clock; readonly logError: (error: unknown, context: string) => void },
): SharedCounts {
  const limits = new Map<string, { readonly limit: RateLimiterMemory; counts: Map<string, number> }>();

  function tell(): void {
    const told = [...limits].flatMap(([prefix, { counts }]) => [...counts].map(([key, count]) => [prefix, key, count]));
    if (told.length === 0) return;
    for (const shared of limits.values()) shared.counts = new Map();
    channel
      .tell(JSON.stringify(told))
      .catch((error) => logError(error, 'the other workers do not hear what was counted'));
  }

  function hear(text: string): void {
    try {
      for (const [prefix, key, count] of toldCounts.parse(JSON.parse(text)))
        void limits.get(prefix)?.limit.penalty(key, count);
    } catch (error) {
      logError(error, 'what another worker counted cannot be read');
    }
  }

  const stop = clock.every(tellIntervalMs, tell);
  const leave = channel.onTold(hear);
  return {
    count(limit, key) {
      const shared = limits.get(limit.keyPrefix) ?? { limit, counts: new Map<string, number>() };
      limits.set(limit.keyPrefix, shared);
      shared.counts.set(key, (shared.counts.get(key) ?? 0) + 1);
    },
    close() {
      stop();
      leave();
    },
  };
}
