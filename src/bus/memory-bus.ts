import type { Bus, Topic, Topics } from './bus.ts';

type Listeners = { [T in Topic]: Set<(message: Topics[T]) => void> };

/** The bus of one process: listeners are called one after the other, right away. */
export function createMemoryBus(logError: (error: unknown, context: string) => void): Bus {
  const listeners: Listeners = {
    events: new Set(),
    presence: new Set(),
    agents: new Set(),
    disconnect: new Set(),
    queued: new Set(),
    messages: new Set(),
  };
  return {
    publish(topic, message) {
      for (const listener of listeners[topic]) {
        try {
          listener(message);
        } catch (error) {
          logError(error, `a listener of the bus topic ${topic} failed`);
        }
      }
    },
    subscribe(topic, listener) {
      listeners[topic].add(listener);
      return () => listeners[topic].delete(listener);
    },
    check: async () => {},
    async close() {
      for (const set of Object.values(listeners)) set.clear();
    },
  };
}
