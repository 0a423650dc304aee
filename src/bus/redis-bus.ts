import { RedisPubSub } from 'graphql-redis-subscriptions';
import type { Redis } from 'ioredis';
import type { Clock } from '../clock.ts';
import { openRedisConnection } from '../redis/clients.ts';
import type { RedisTarget } from '../redis/target.ts';
import type { Bus } from './bus.ts';
import { type Carrier, type CarrierListener, createRelayedBus } from './relay.ts';

type LogError = (error: unknown, context: string) => void;

/** One channel for all topics: their order holds, and whoever misses a text knows it by its number. */
const channel = 'aegis:hints';
/** So long Redis may owe an answer before its connection counts as dead. */
const answerMs = 5_000;
const watchIntervalMs = 5_000;

/** The bus between gateways that share a Redis. What is published while it is away is lost, and found by polling. */
export function createRedisBus(
  target: RedisTarget,
  deps: { readonly instanceId: string; readonly clock: Clock; readonly logError: LogError },
): Promise<Bus> {
  return createRelayedBus((listener) => openRedisCarrier(target, listener, deps), deps);
}

async function openRedisCarrier(
  target: RedisTarget,
  listener: CarrierListener,
  { clock, logError }: { readonly clock: Clock; readonly logError: LogError },
): Promise<Carrier> {
  const onError = (error: Error) => logError(error, 'the connection to Redis failed');
  const subscriber = openRedisConnection(target, { maxRetriesPerRequest: null }, onError);
  // Without an offline queue: a hint that is minutes old helps nobody.
  const publisher = openRedisConnection(
    target,
    { maxRetriesPerRequest: 0, enableOfflineQueue: false, socketTimeout: answerMs },
    onError,
  );
  const redis = new RedisPubSub({ publisher, subscriber, serializer: String, deserializer: String });
  /** Whether anything was published, and whether anything has been heard, since the last look. */
  let hasPublished = false;
  let hasHeard = false;

  const subscribing = redis.subscribe<string>(channel, (text) => {
    hasHeard = true;
    listener.heard(text);
  });
  // Not awaited where Redis is away: the subscription is made once it is there.
  const ready = Promise.all([subscribing, next(publisher, 'ready')]);
  await Promise.race([ready, next(subscriber, 'error'), next(publisher, 'error')]);
  subscribing.catch((error) => logError(error, 'the channel of the bus could not be subscribed to'));

  // Said again to learn when it holds: a look before that could miss what comes between.
  subscriber.on('ready', () => {
    subscriber.subscribe(channel).then(listener.returned, () => {});
  });

  // Whatever a gateway publishes it hears itself. A connection over which nothing comes any more is made anew.
  const stopWatching = clock.every(watchIntervalMs, () => {
    if (hasPublished && !hasHeard && subscriber.status === 'ready') {
      subscriber.disconnect(true);
      publisher.disconnect(true);
    }
    hasPublished = false;
    hasHeard = false;
  });

  return {
    async send(text) {
      await redis.publish(channel, text);
      hasPublished = true;
    },
    async check() {
      await publisher.ping();
    },
    close() {
      stopWatching();
      subscriber.disconnect();
      publisher.disconnect();
    },
  };
}

function next(client: Redis, event: 'ready' | 'error'): Promise<unknown> {
  return new Promise((resolve) => client.once(event, resolve));
}
