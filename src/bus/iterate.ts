import { createBacklog } from './backlog.ts';
import type { Bus, Topic, Topics } from './bus.ts';
import { endable } from './endable.ts';

const maxQueuedItems = 100_000;

/**
 * What a topic brings from the first `next` on, as items that `pick` takes out of each message, until `signal` aborts.
 * Throws SLOW_CONSUMER where the reader falls too far behind.
 */
export function iterate<T extends Topic, Item extends object>(
  bus: Bus,
  topic: T,
  pick: (message: Topics[T]) => readonly Item[],
  signal: AbortSignal,
): AsyncIterableIterator<Item> {
  return endable(signal, async function* (ending) {
    const backlog = createBacklog<Item>({ maxItems: maxQueuedItems });
    ending.addEventListener('abort', backlog.end);
    const unsubscribe = bus.subscribe(topic, (message) => {
      for (const item of pick(message)) backlog.offer(item);
    });
    try {
      for (let item = await backlog.next(); item; item = await backlog.next()) yield item;
    } finally {
      unsubscribe();
    }
  });
}
