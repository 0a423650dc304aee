import type { Bus, Topic, Topics } from './bus.ts';

type Listeners = { [T in Topic]: Set<{ readonly listener: (message: Topics[T]) => void }> };

/** The bus of one process: listeners are called one after the other, right away. */
export function createMemoryBus(logError: (error: unknown, context: string) => void): Bus {
  const listeners: Listeners = {
    events: new Set(),
    stored: new Set(),
    bodies: new Set(),
    presence: new Set(),
    agents: new Set(),
    disconnect: new Set(),
    owned: new Set(),
    queued: new Set(),
    queuedForMany: new Set(),
    credentials: new Set(),
    messages: new Set(),
    changed: new Set(),
    missed: new Set(),
  };
  return {
    publish(topic, message) {
      // A copy: who subscribes meanwhile comes in with the next message, who leaves meanwhile gets no more.
      for (const entry of [...listeners[topic]]) {
        if (!listeners[topic].has(entry)) continue;
        try {
          entry.listener(message);
        } catch (error) {
          logError(error, `a listener of the bus topic ${topic} failed`);
        }
      }
    },
    subscribe(topic, listener) {
      const entry = { listener };
      listeners[topic].add(entry);
      return () => listeners[topic].delete(entry);
    },
    peers: [],
    lost: 0,
    check: async () => {},
    async close() {
      for (const set of Object.values(listeners)) set.clear();
    },
  };
}
