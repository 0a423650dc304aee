import { AegisError } from './errors.ts';

/**
 * Keyset paging, in the words of Relay: forwards with `first` and `after`, backwards with `last` and `before`. Items run in
 * the same order either way.
 */
export interface PageRequest {
  readonly first?: number | null | undefined;
  readonly after?: string | null | undefined;
  readonly last?: number | null | undefined;
  readonly before?: string | null | undefined;
}

export interface Page<Item> {
  readonly items: readonly Item[];
  readonly hasNextPage: boolean;
  readonly hasPreviousPage: boolean;
}

/** A page request with its cursors decoded to keys: what a query needs. */
export interface KeysetRange<Key> {
  readonly limit: number;
  readonly backwards: boolean;
  readonly after: Key | null;
  readonly before: Key | null;
}

export const defaultPageSize = 50;
export const maxPageSize = 500;

/**
 * Checks a page request and decodes its cursors.
 * Throws BAD_USER_INPUT where both directions are asked for or a size is out of range; `decode` throws CURSOR_INVALID.
 */
export function keysetRange<Key>(request: PageRequest, decode: (cursor: string) => Key): KeysetRange<Key> {
  const { first, last, after, before } = request;
  if (first != null && last != null) throw new AegisError('BAD_USER_INPUT', 'Ask for `first` or `last`, not both');
  const backwards = last != null || (first == null && before != null && after == null);
  const limit = (backwards ? last : first) ?? defaultPageSize;
  if (!Number.isInteger(limit) || limit < 0 || limit > maxPageSize)
    throw new AegisError('BAD_USER_INPUT', `\`first\` and \`last\` go from 0 to ${maxPageSize}`);
  return {
    limit,
    backwards,
    after: after == null ? null : decode(after),
    before: before == null ? null : decode(before),
  };
}

/**
 * Makes a page of the rows that a query found when it asked for `limit + 1` of them in the range's direction: the one
 * too many tells that there is more.
 */
export function pageOf<Item>(range: KeysetRange<unknown>, found: readonly Item[]): Page<Item> {
  const more = found.length > range.limit;
  const items = found.slice(0, range.limit);
  if (range.backwards) return { items: items.reverse(), hasNextPage: range.before !== null, hasPreviousPage: more };
  return { items, hasNextPage: more, hasPreviousPage: range.after !== null };
}

/** An opaque cursor over a key; `kind` keeps cursors of one list from being taken for those of another. */
export function encodeCursor(kind: string, key: string | number): string {
  return Buffer.from(`${kind}:${key}`).toString('base64url');
}

/** The key in a cursor. Throws CURSOR_INVALID for anything that `encodeCursor` did not make with this kind. */
export function decodeCursor(kind: string, cursor: string): string {
  const text = Buffer.from(cursor, 'base64url').toString();
  if (text.startsWith(`${kind}:`) && encodeCursor(kind, text.slice(kind.length + 1)) === cursor)
    return text.slice(kind.length + 1);
  throw new AegisError('CURSOR_INVALID');
}

/** The same for a key that is a whole number. */
export function decodeNumericCursor(kind: string, cursor: string): number {
  const key = decodeCursor(kind, cursor);
  const value = Number(key);
  // What `Number` makes of '', '0x1f' and '1e3' was never a key.
  if (!Number.isSafeInteger(value) || value < 0 || String(value) !== key) throw new AegisError('CURSOR_INVALID');
  return value;
}
