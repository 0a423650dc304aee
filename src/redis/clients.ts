import { Cluster, Redis } from 'ioredis';
import type { RedisTarget } from './target.ts';

/** Those of ioredis that are used, in its words. */
export interface RedisClientOptions {
  readonly commandTimeout?: number;
  readonly enableAutoPipelining?: boolean;
  readonly enableOfflineQueue?: boolean;
  readonly maxRetriesPerRequest?: number | null;
  readonly socketTimeout?: number;
}

const maxReconnectDelayMs = 2_000;
const retryStrategy = (attempt: number) => Math.min(100 * attempt, maxReconnectDelayMs);

/** A client for keys, which follows a cluster's slots and the master that sentinels name. It reconnects for ever. */
export function openRedis(
  target: RedisTarget,
  options: RedisClientOptions,
  onError: (error: Error) => void,
): Redis | Cluster {
  if (target.kind !== 'cluster') return openRedisConnection(target, options, onError);
  const { enableOfflineQueue, enableAutoPipelining, ...redisOptions } = options;
  const cluster = new Cluster([...target.nodes], {
    redisOptions: { ...redisOptions, ...loginOf(target) },
    clusterRetryStrategy: retryStrategy,
    enableOfflineQueue,
    enableAutoPipelining,
    // By name, or no certificate would fit.
    ...(target.tls && { dnsLookup: (host, found) => found(null, host) }),
  });
  cluster.on('error', onError);
  return cluster;
}

/**
 * One connection, to the server, to the sentinels' master, or to one node of a cluster, any of which takes what is published
 * and tells what others have published: the next one where that cannot be reached. It reconnects for ever.
 */
export function openRedisConnection(
  target: RedisTarget,
  options: RedisClientOptions,
  onError: (error: Error) => void,
): Redis {
  const redis = new Redis({ ...options, ...loginOf(target), ...placeOf(target), retryStrategy: nextNode });
  redis.on('error', onError);
  let turn = 0;

  function nextNode(attempt: number): number {
    if (target.kind === 'cluster') {
      const { host, port } = target.nodes[++turn % target.nodes.length] ?? target.nodes[0];
      // Where the connector looks when it connects again.
      Object.assign(redis.options, { host, port });
    }
    return retryStrategy(attempt);
  }

  return redis;
}

function placeOf(target: RedisTarget) {
  if (target.kind === 'server') return { ...target.node, db: target.db };
  if (target.kind === 'cluster') return { ...target.nodes[0] };
  return {
    sentinels: [...target.sentinels],
    name: target.masterName,
    db: target.db,
    sentinelRetryStrategy: retryStrategy,
    enableTLSForSentinelMode: target.tls,
    ...(target.tls && { sentinelTLS: {} }),
    ...(target.sentinelUsername !== null && { sentinelUsername: target.sentinelUsername }),
    ...(target.sentinelPassword !== null && { sentinelPassword: target.sentinelPassword }),
  };
}

function loginOf({ tls, username, password }: RedisTarget) {
  return {
    ...(tls && { tls: {} }),
    ...(username !== null && { username }),
    ...(password !== null && { password }),
  };
}
