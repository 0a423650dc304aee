import type { Consumer } from '../access/consumer.ts';
import { networkOf } from '../addresses.ts';
import { AegisError } from '../errors.ts';

/** How much may stay open at once: each socket and each subscription costs memory for as long as its client likes. */
export interface StreamQuotas {
  /** Sockets of one address, whoever is behind it. */
  readonly addresses: Quota<string | null>;
  /** Sockets of one consumer. */
  readonly sockets: Quota<Holder>;
  /** Running subscriptions of one consumer, over all transports. */
  readonly subscriptions: Quota<Holder>;
}

export interface Quota<Key> {
  /** Throws TOO_MANY_STREAMS where there is room for no more. */
  check(key: Key): void;
  /** Takes room; what it returns gives it back. */
  take(key: Key): () => void;
}

type Holder = Pick<Consumer, 'kind' | 'id'>;

/** `most` of each on this gateway; null: any number. */
export function createStreamQuotas(most: number | null): StreamQuotas {
  const nameOf = ({ kind, id }: Holder) => `${kind}:${id}`;
  return {
    addresses: createQuota(most, (address) => address && networkOf(address)),
    sockets: createQuota(most, nameOf),
    subscriptions: createQuota(most, nameOf),
  };
}

/** What has no name takes no room. */
function createQuota<Key>(most: number | null, nameOf: (key: Key) => string | null): Quota<Key> {
  const taken = new Map<string, number>();
  return {
    check(key) {
      if (most !== null && (taken.get(nameOf(key) ?? '') ?? 0) >= most) throw new AegisError('TOO_MANY_STREAMS');
    },
    take(key) {
      const name = nameOf(key);
      if (name === null) return () => {};
      taken.set(name, (taken.get(name) ?? 0) + 1);
      let isTaken = true;
      return () => {
        if (!isTaken) return;
        isTaken = false;
        const left = (taken.get(name) ?? 0) - 1;
        if (left > 0) taken.set(name, left);
        else taken.delete(name);
      };
    },
  };
}
