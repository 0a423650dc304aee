/**
 * An iterator over what `open` gives, from the first `next` on, until `signal` aborts. Unlike a bare generator, which puts
 * off its `return` until the `next` under way is answered, this one ends at once: `open`'s signal aborts with it.
 */
export function endable<Item>(
  signal: AbortSignal,
  open: (signal: AbortSignal) => AsyncGenerator<Item>,
): AsyncIterableIterator<Item, undefined> {
  const ending = new AbortController();
  function end(): void {
    signal.removeEventListener('abort', end);
    ending.abort();
  }
  if (signal.aborted) end();
  else signal.addEventListener('abort', end);
  const items = open(ending.signal);
  async function over(): Promise<IteratorReturnResult<undefined>> {
    end();
    await items.return(undefined);
    return { done: true, value: undefined };
  }
  return {
    async next() {
      if (ending.signal.aborted) return over();
      try {
        const result = await items.next();
        return result.done ? over() : result;
      } catch (error) {
        end();
        throw error;
      }
    },
    return: over,
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
