import type { Cluster, Redis } from 'ioredis';
import { type RateLimiterMemory, RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';
import type { Clock } from '../clock.ts';
import { openRedis } from '../redis/clients.ts';
import type { RedisTarget } from '../redis/target.ts';

/** What several gateways have counted, in Redis. */
export interface SharedCounts {
  /** Adds so many. Where all gateways together have counted too many, the key is blocked in `limit` soon after. */
  count(limit: RateLimiterMemory, key: string, number: number): void;
  close(): void;
}

const shareIntervalMs = 100;
const commandTimeoutMs = 1_000;

/**
 * No request waits for Redis: each gateway decides by its own counts, tells them to Redis ten times a second, and hears there
 * whom all of them together have had enough of. So limits hold over all gateways but for what comes within that time, cost
 * one command for each key and tenth of a second, and where Redis is away each gateway's own limits go on.
 */
export function createSharedCounts(
  target: RedisTarget,
  { clock, logError }: { readonly clock: Clock; readonly logError: (error: unknown, context: string) => void },
): SharedCounts {
  const redis = openRedis(
    target,
    {
      commandTimeout: commandTimeoutMs,
      enableAutoPipelining: true,
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
    },
    (error) => logError(error, 'the connection to Redis failed'),
  );
  const limits = new Map<RateLimiterMemory, { readonly store: RateLimiterRedis; counts: Map<string, number> }>();
  let isSharing = false;

  async function share(): Promise<void> {
    if (isSharing) return;
    isSharing = true;
    const shares = [...limits].flatMap(([limit, shared]) => {
      const { store, counts } = shared;
      shared.counts = new Map();
      return [...counts].map(([key, count]) => shareOne(limit, store, key, count));
    });
    await Promise.all(shares);
    isSharing = false;
  }

  /** Counts that Redis does not take are lost to the others. */
  async function shareOne(
    limit: RateLimiterMemory,
    store: RateLimiterRedis,
    key: string,
    count: number,
  ): Promise<void> {
    try {
      await store.consume(key, count);
    } catch (reason) {
      if (reason instanceof RateLimiterRes) await limit.block(key, reason.msBeforeNext / 1_000);
    }
  }

  const stop = clock.every(shareIntervalMs, () => void share());
  return {
    count(limit, key, number) {
      const shared = limits.get(limit) ?? { store: storeOf(redis, limit), counts: new Map<string, number>() };
      limits.set(limit, shared);
      // While Redis is away or slow nothing piles up but one number for each key that is asked with.
      if (redis.status === 'ready') shared.counts.set(key, (shared.counts.get(key) ?? 0) + number);
    },
    close() {
      stop();
      redis.disconnect();
    },
  };
}

function storeOf(redis: Redis | Cluster, { keyPrefix, points, duration }: RateLimiterMemory): RateLimiterRedis {
  return new RateLimiterRedis({
    storeClient: redis,
    keyPrefix: `aegis:rate:${keyPrefix}`,
    points,
    duration,
    rejectIfRedisNotReady: true,
  });
}
