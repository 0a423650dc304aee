import { eventCursor } from './cursor.ts';
import type { EventKind, StoredEvent, StreamGap } from './event.ts';

/** The last event of each kind that retention took, by position; kinds that lost nothing are not in it. */
export type DroppedThrough = ReadonlyMap<string, number>;

/** What one reader is given of the stream: everything between two positions. */
export interface Stretch {
  /** Exclusive: the reader has been given everything up to here. */
  readonly after: number;
  /** Inclusive. */
  readonly through: number;
  /** What the reader wants of what is still there, in order. */
  readonly events: readonly StoredEvent[];
  /** As of a moment after `events` were read, so that nothing can have gone in between unseen. */
  readonly dropped: DroppedThrough;
}

/**
 * Tells one reader where retention was there before it. Stretches must follow each other.
 *
 * A gap stands where it ends, after all that is still there before that: a reader takes `to` for its next cursor, so
 * whatever came after it would be lost if the reader were cut off in between, and one that is cut off before it meets it again.
 */
export function createGapTeller(kinds: readonly EventKind[] | undefined): {
  tell(stretch: Stretch): readonly (StoredEvent | StreamGap)[];
} {
  /** Where a gap began whose end has not been reached. */
  let openFrom: number | null = null;

  return {
    tell({ after, through, events, dropped }) {
      const lost = [...dropped].filter(([kind, position]) => position > after && isWanted(kind));
      if (lost.length === 0) return events;
      openFrom ??= after;
      const to = Math.max(...lost.map(([, position]) => position));
      if (to > through) return events;
      const gap = gapBetween(openFrom, to, lost);
      openFrom = null;
      const place = events.findIndex(({ position }) => position > to);
      return place === -1 ? [...events, gap] : [...events.slice(0, place), gap, ...events.slice(place)];
    },
  };

  function isWanted(kind: string): boolean {
    return kinds === undefined || kinds.some((wanted) => wanted === kind);
  }
}

function gapBetween(from: number, to: number, lost: readonly (readonly [string, number])[]): StreamGap {
  const kinds = lost.map(([kind]) => kind).sort();
  return { from: eventCursor(from), to: eventCursor(to), reason: `Past their retention: ${kinds.join(', ')}` };
}
