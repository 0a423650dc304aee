import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import { networkOf } from '../addresses.ts';
import { AegisError } from '../errors.ts';
import type { Consumer } from './consumer.ts';
import type { SharedCounts } from './shared-counts.ts';

/** Over so long requests are counted: a limit of ten a second lets a hundred through at once. */
export const windowSeconds = 10;
/**
 * Credentials that are not good, from one address within a minute; those beyond are told to come back later. Good ones are heard
 * all the same: many may share an address, and one of them must not lock the others out.
 */
export const maxFailures = 100;
const failureWindowSeconds = 60;

/** Requests a second; null: any number. */
export interface RateLimitSettings {
  readonly consumerPerSecond: number | null;
  readonly addressPerSecond: number | null;
}

/**
 * Who asks how often. All methods count one unless they are told otherwise, throw RATE_LIMITED where that is one too many, and never wait for anything but this
 * process.
 */
export interface RateLimits {
  /** A request, or an operation over a socket; `number` where it asks for so many things at once. */
  countConsumer(consumer: Pick<Consumer, 'kind' | 'id'>, number?: number): Promise<void>;
  /** A request before anything is known of who makes it. `address` as `RequestOrigin` has it; null counts as nothing. */
  countAddress(address: string | null): Promise<void>;
  /** Credentials that were not good. */
  countFailure(address: string | null): Promise<void>;
}

/** `shared`: where several gateways count together; null where each counts for itself. */
export function createRateLimits(settings: RateLimitSettings, shared: SharedCounts | null): RateLimits {
  const consumers = limiter('consumer', settings.consumerPerSecond);
  const addresses = limiter('address', settings.addressPerSecond);
  const failures = new RateLimiterMemory({ points: maxFailures, duration: failureWindowSeconds });

  function limiter(keyPrefix: string, perSecond: number | null): RateLimiterMemory | null {
    return perSecond === null
      ? null
      : new RateLimiterMemory({ keyPrefix, points: perSecond * windowSeconds, duration: windowSeconds });
  }

  async function count(limit: RateLimiterMemory, key: string, number = 1): Promise<void> {
    shared?.count(limit, key, number);
    await holdTo(limit, key, number);
  }

  async function holdTo(limit: RateLimiterMemory, key: string, number = 1): Promise<void> {
    const excess = await excessOf(limit, key, number);
    if (excess) throw new AegisError('RATE_LIMITED', undefined, { retryAfterMs: excess.msBeforeNext });
  }

  return {
    async countConsumer({ kind, id }, number) {
      if (consumers) await count(consumers, `${kind}:${id}`, number);
    },
    async countAddress(address) {
      if (addresses && address !== null) await count(addresses, networkOf(address));
    },
    async countFailure(address) {
      if (addresses && address !== null) await holdTo(failures, networkOf(address));
    },
  };
}

/** What the library rejects with where a count is one too many; null where it is not. */
async function excessOf(limit: RateLimiterMemory, key: string, number: number): Promise<RateLimiterRes | null> {
  try {
    await limit.consume(key, number);
    return null;
  } catch (excess) {
    if (excess instanceof RateLimiterRes) return excess;
    throw excess;
  }
}
