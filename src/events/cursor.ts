import { decodeNumericCursor, encodeCursor } from '../paging.ts';

/** A place in the stream of events, as consumers are told it. */
export function eventCursor(position: number): string {
  return encodeCursor('event', position);
}

/** The position in a cursor. Throws CURSOR_INVALID for what is none. */
export function positionIn(cursor: string): number {
  return decodeNumericCursor('event', cursor);
}
