import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decodeCursor,
  decodeNumericCursor,
  defaultPageSize,
  encodeCursor,
  keysetRange,
  maxPageSize,
  type PageRequest,
  pageOf,
} from '../src/paging.ts';
import { walkPages } from './walk-pages.ts';

const invalid = (code: string) => expect.objectContaining({ code });
const asNumber = (cursor: string) => decodeNumericCursor('item', cursor);

describe('a page request', () => {
  it('goes forwards by default, backwards with `last` or with `before` alone', () => {
    const range = (request: Parameters<typeof keysetRange>[0]) => keysetRange(request, String);
    expect(range({})).toEqual({ limit: defaultPageSize, backwards: false, after: null, before: null });
    expect(range({ first: null, after: null, last: null, before: null })).toEqual(range({}));
    expect(range({ first: 3, after: 'a' })).toEqual({ limit: 3, backwards: false, after: 'a', before: null });
    expect(range({ last: 3, before: 'b' })).toEqual({ limit: 3, backwards: true, after: null, before: 'b' });
    expect(range({ before: 'b' })).toMatchObject({ limit: defaultPageSize, backwards: true });
    expect(range({ after: 'a', before: 'b' })).toMatchObject({ backwards: false });
    expect(range({ first: 2, before: 'b' })).toMatchObject({ backwards: false });
  });

  it('takes sizes from 0 to the most, and nothing else', () => {
    for (const size of [0, 1, maxPageSize]) {
      expect(keysetRange({ first: size }, String).limit).toBe(size);
      expect(keysetRange({ last: size }, String).limit).toBe(size);
    }
    for (const size of [-1, maxPageSize + 1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => keysetRange({ first: size }, String)).toThrow(invalid('BAD_USER_INPUT'));
      expect(() => keysetRange({ last: size }, String)).toThrow(invalid('BAD_USER_INPUT'));
    }
    expect(() => keysetRange({ first: 1, last: 1 }, String)).toThrow(invalid('BAD_USER_INPUT'));
  });

  it('passes on what its cursors are not', () => {
    expect(() => keysetRange({ after: 'x' }, asNumber)).toThrow(invalid('CURSOR_INVALID'));
    expect(() => keysetRange({ before: '' }, asNumber)).toThrow(invalid('CURSOR_INVALID'));
  });
});

describe('a page', () => {
  it('walks through any list either way without a gap or a repeat', async () => {
    const listOf = (count: number) => Array.from({ length: count }, (_, index) => index);
    const ask = (all: readonly number[]) => (request: PageRequest) => {
      const range = keysetRange(request, asNumber);
      const after = range.after ?? -1;
      const before = range.before ?? all.length;
      const matching = all.filter((key) => key > after && key < before);
      return pageOf(range, (range.backwards ? matching.reverse() : matching).slice(0, range.limit + 1));
    };
    const cursorOf = (key: number) => encodeCursor('item', key);
    await fc.assert(
      fc.asyncProperty(fc.nat(40), fc.integer({ min: 1, max: 12 }), fc.boolean(), async (count, size, backwards) => {
        const all = listOf(count);
        expect(await walkPages({ ask: ask(all), cursorOf, size, backwards })).toEqual(all);
      }),
    );
  });

  it('of no items tells whether there are any', () => {
    const range = keysetRange({ first: 0 }, String);
    expect(pageOf(range, ['one'])).toEqual({ items: [], hasNextPage: true, hasPreviousPage: false });
    expect(pageOf(range, [])).toEqual({ items: [], hasNextPage: false, hasPreviousPage: false });
  });
});

describe('a cursor', () => {
  it('brings any key back, for its own kind of list alone', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (key) => {
        const cursor = encodeCursor('item', key);
        expect(cursor).toMatch(/^[\w-]*$/);
        expect(decodeCursor('item', cursor)).toBe(key);
        expect(() => decodeCursor('other', cursor)).toThrow(invalid('CURSOR_INVALID'));
      }),
    );
    fc.assert(
      fc.property(fc.maxSafeNat(), (key) => {
        expect(asNumber(encodeCursor('item', key))).toBe(key);
      }),
    );
  });

  it('is nothing that the list did not make', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        expect(() => decodeCursor('item', text)).toThrow(invalid('CURSOR_INVALID'));
      }),
    );
    const cursor = encodeCursor('item', 'key');
    for (const alias of [`${cursor}=`, ` ${cursor}`, `${cursor}\n`, cursor.slice(0, -1), encodeCursor('Item', 'key')])
      expect(() => decodeCursor('item', alias)).toThrow(invalid('CURSOR_INVALID'));
  });

  it.each(['', ' 5', '5 ', '05', '+5', '-1', '1e3', '0x10', '1.5', 'NaN', 'Infinity', '9007199254740993', '½'])(
    'over a number is not %j',
    (key) => {
      expect(() => asNumber(encodeCursor('item', key))).toThrow(invalid('CURSOR_INVALID'));
    },
  );
});
