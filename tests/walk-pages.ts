import type { Page, PageRequest } from '../src/paging.ts';

/** Every item of a list, page after page, forwards or backwards, in the order of the list. */
export async function walkPages<Item>(list: {
  readonly ask: (request: PageRequest) => Promise<Page<Item>> | Page<Item>;
  readonly cursorOf: (item: Item) => string;
  readonly size: number;
  readonly backwards: boolean;
}): Promise<Item[]> {
  const { ask, cursorOf, size, backwards } = list;
  const pages: (readonly Item[])[] = [];
  let cursor: string | null = null;
  for (;;) {
    const page: Page<Item> = await ask(backwards ? { last: size, before: cursor } : { first: size, after: cursor });
    const { items, hasNextPage, hasPreviousPage } = page;
    pages.push(items);
    const edge = backwards ? items[0] : items.at(-1);
    if (items.length > size) throw new Error('a page is too large');
    if (!(backwards ? hasPreviousPage : hasNextPage)) return (backwards ? pages.reverse() : pages).flat();
    if (edge === undefined || items.length < size) throw new Error('a page that is not the last one is not full');
    cursor = cursorOf(edge);
  }
}
