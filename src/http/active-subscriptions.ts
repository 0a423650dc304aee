import type { ExecutionResult } from 'graphql';

export type Results = AsyncGenerator<ExecutionResult, void, void>;

/** The subscriptions that run now, whatever their transport. */
export interface ActiveSubscriptions {
  readonly count: number;
  /** Counts these results until they end, fail or are returned. */
  track(results: AsyncIterable<ExecutionResult>): Results;
  /** Returns all that run, and what is tracked from then on at once; resolves when they have let go of what they held. */
  endAll(): Promise<void>;
  /** Some of them that end together, say those of one socket. They count here as well. */
  group(): ActiveSubscriptions;
}

export function createActiveSubscriptions(
  admit: (results: AsyncIterable<ExecutionResult>) => AsyncIterable<ExecutionResult> = (results) => results,
): ActiveSubscriptions {
  const active = new Set<Results>();
  let ending = false;

  function tracked(iterator: AsyncIterator<ExecutionResult>): Results {
    let returning: Promise<void> | null = null;
    async function letGo(): Promise<void> {
      try {
        await iterator.return?.();
      } finally {
        active.delete(results);
      }
    }
    const results: Results = {
      async next() {
        let going = false;
        try {
          const result = await iterator.next();
          going = result.done !== true;
          return result;
        } finally {
          if (!going) active.delete(results);
        }
      },
      async return() {
        returning ??= letGo();
        await returning;
        return { done: true, value: undefined };
      },
      async throw(error) {
        await results.return();
        throw error;
      },
      [Symbol.asyncIterator]() {
        return results;
      },
    };
    return results;
  }

  function track(iterable: AsyncIterable<ExecutionResult>): Results {
    const results = tracked(admit(iterable)[Symbol.asyncIterator]());
    active.add(results);
    if (ending) void results.return();
    return results;
  }

  return {
    get count() {
      return active.size;
    },
    track,
    async endAll() {
      ending = true;
      await Promise.allSettled([...active].map((results) => results.return()));
    },
    group: () => createActiveSubscriptions(track),
  };
}
