import type { Loaders } from './loaders.ts';

/**
 * Where one stream stands, between it and a transport that can resume it by cursor. The stream moves `cursor` right before
 * each item, and a transport asks for an item only when it has done with the one before: so `cursor` is always that of the
 * item in hand, whatever fields of it the client selected.
 */
export interface StreamPlace {
  /** The cursor that the client saw last; goes before the argument `after`. */
  readonly lastSeen: string | null;
  /** Before the first item where the stream starts; null for a stream without cursors. */
  cursor: string | null;
}

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
