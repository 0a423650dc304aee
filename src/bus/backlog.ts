import { AegisError } from '../errors.ts';

/** What one reader has yet to take, bounded, first in first out. For one reader at a time. */
export interface Backlog<Item extends object> {
  /** Adds an item. Where it is one too many, everything is let go of and the reader is told at its next `next`. */
  offer(item: Item): void;
  /** The next item, as soon as there is one; undefined once the backlog has ended. Throws SLOW_CONSUMER. */
  next(): Promise<Item | undefined>;
  /** Whether the reader has taken everything that came. */
  readonly isEmpty: boolean;
  /** What has not been taken, by `sizeBytes`. */
  readonly waitingBytes: number;
  /** Nothing more is given, and a reader that waits goes free. */
  end(): void;
}

export interface BacklogBounds<Item> {
  readonly maxItems: number;
  readonly maxBytes?: number;
  /** What an item takes, roughly; 0 for everything where absent. */
  readonly sizeBytes?: (item: Item) => number;
}

/** So many taken items may stay at the front of the array: `shift` would move all the others each time. */
const maxTakenItems = 1_024;

export function createBacklog<Item extends object>(bounds: BacklogBounds<Item>): Backlog<Item> {
  const { maxItems, maxBytes = Number.POSITIVE_INFINITY, sizeBytes = () => 0 } = bounds;
  let items: Item[] = [];
  let taken = 0;
  let waitingBytes = 0;
  let state: 'open' | 'overrun' | 'ended' = 'open';
  let wake = () => {};

  function leave(next: 'overrun' | 'ended'): void {
    state = next;
    items = [];
    taken = 0;
    wake();
  }

  function take(): Item | undefined {
    const item = items[taken];
    if (item === undefined) return undefined;
    waitingBytes -= sizeBytes(item);
    taken++;
    if (taken === items.length || taken === maxTakenItems) {
      items = items.slice(taken);
      taken = 0;
    }
    return item;
  }

  return {
    offer(item) {
      if (state !== 'open') return;
      waitingBytes += sizeBytes(item);
      if (items.length - taken >= maxItems || waitingBytes > maxBytes) return leave('overrun');
      items.push(item);
      wake();
    },
    async next() {
      for (;;) {
        if (state === 'ended') return undefined;
        if (state === 'overrun') throw new AegisError('SLOW_CONSUMER');
        const item = take();
        if (item) return item;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
    get isEmpty() {
      return taken === items.length;
    },
    get waitingBytes() {
      return waitingBytes;
    },
    end() {
      if (state === 'open') leave('ended');
    },
  };
}
