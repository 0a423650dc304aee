import type { Loaders } from './loaders.ts';

/** What a stream needs of the operation's context. */
interface StreamContext {
  readonly loaders: Pick<Loaders, 'forget'>;
}

/**
 * The source of one subscription: what `open` gives, item by item, each admitted or left out. What earlier items loaded is
 * forgotten before each one, so that every item is shown as things are then.
 * Returning the iterator aborts the signal at once, also while an item is awaited or before the first was asked for.
 */
export function streamOf<Source, Item>(
  context: StreamContext,
  open: (signal: AbortSignal) => AsyncIterable<Source>,
  admit: (source: Source) => Promise<Item | null> | Item | null,
): AsyncIterableIterator<Item> {
  const ending = new AbortController();
  const items = admitted(context, open(ending.signal), admit);
  async function end(): Promise<IteratorResult<Item>> {
    ending.abort();
    await items.return(undefined);
    return { done: true, value: undefined };
  }
  return {
    async next() {
      try {
        const result = await items.next();
        if (result.done) ending.abort();
        return result;
      } catch (error) {
        ending.abort();
        throw error;
      }
    },
    return: end,
    async throw(error) {
      await end();
      throw error;
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

async function* admitted<Source, Item>(
  context: StreamContext,
  sources: AsyncIterable<Source>,
  admit: (source: Source) => Promise<Item | null> | Item | null,
): AsyncGenerator<Item, undefined> {
  for await (const source of sources) {
    context.loaders.forget();
    const item = await admit(source);
    if (item !== null) yield item;
  }
}
