import { AegisError } from '../errors.ts';
import type { Bus, Topic, Topics } from './bus.ts';

const maxQueuedItems = 100_000;

/**
 * What a topic brings from the first `next` on, as items that `pick` takes out of each message, until `signal` aborts.
 * Throws SLOW_CONSUMER where the reader falls too far behind.
 */
export async function* iterate<T extends Topic, Item>(
  bus: Bus,
  topic: T,
  pick: (message: Topics[T]) => readonly Item[],
  signal: AbortSignal,
): AsyncGenerator<Item> {
  const queue: Item[] = [];
  let wake = () => {};
  const onAbort = () => wake();
  const unsubscribe = bus.subscribe(topic, (message) => {
    queue.push(...pick(message));
    wake();
  });
  signal.addEventListener('abort', onAbort);
  try {
    while (!signal.aborted) {
      if (queue.length > maxQueuedItems) throw new AegisError('SLOW_CONSUMER');
      const item = queue.shift();
      if (item !== undefined) yield item;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    unsubscribe();
    signal.removeEventListener('abort', onAbort);
  }
}
