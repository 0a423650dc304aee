import type { ExecutionResult } from 'graphql';

export type Results = AsyncGenerator<ExecutionResult, void, void>;

/** The subscriptions that run now, whatever their transport. */
export interface ActiveSubscriptions {
  readonly count: number;
  /** Counts these results until they end, fail or are returned, and calls `onEnded` then. */
  track(results: AsyncIterable<ExecutionResult>, onEnded?: () => void): Results;
  /** Returns all that run, and what is tracked from then on at once; resolves when they have let go of what they held. */
  endAll(): Promise<void>;
  /** Some of them that end together, say those of one socket. They count here as well. */
  group(): ActiveSubscriptions;
}

/** `parent`: where they count as well. */
export function createActiveSubscriptions(parent?: ActiveSubscriptions): ActiveSubscriptions {
  const active = new Map<Results, () => void>();
  let ending = false;

  function forget(results: Results): void {
    const onEnded = active.get(results);
    active.delete(results);
    onEnded?.();
  }

  function tracked(iterator: AsyncIterator<ExecutionResult>): Results {
    let returning: Promise<void> | null = null;
    async function letGo(): Promise<void> {
      try {
        await iterator.return?.();
      } finally {
        forget(results);
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
          if (!going) forget(results);
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

  function track(iterable: AsyncIterable<ExecutionResult>, onEnded = () => {}): Results {
    const results = tracked((parent?.track(iterable, onEnded) ?? iterable)[Symbol.asyncIterator]());
    active.set(results, parent ? () => {} : onEnded);
    if (ending) void results.return();
    return results;
  }

  const subscriptions: ActiveSubscriptions = {
    get count() {
      return active.size;
    },
    track,
    async endAll() {
      ending = true;
      await Promise.allSettled([...active.keys()].map((results) => results.return()));
    },
    group: () => createActiveSubscriptions(subscriptions),
  };
  return subscriptions;
}
