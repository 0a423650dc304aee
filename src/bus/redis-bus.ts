import { RedisPubSub } from 'graphql-redis-subscriptions';
import type { Redis } from 'ioredis';
import type { Clock } from '../clock.ts';
import { openRedisConnection } from '../redis/clients.ts';
import type { RedisTarget } from '../redis/target.ts';
import type { Bus } from './bus.ts';
import { type Carrier, type CarrierListener, createRelayedBus } from './relay.ts';
import { openBodies, sealBodies } from './sealed-bodies.ts';

type LogError = (error: unknown, context: string) => void;

/** One channel for all topics: their order holds, and whoever misses a text knows it by its number. */
const channel = 'aegis:hints';
/** Another for bodies, which costs gateways nothing that do not take them. Each text has its sender in front. */
const bodiesChannel = 'aegis:bodies';
/** So long Redis may owe an answer before its connection counts as dead. */
const answerMs = 5_000;
const watchIntervalMs = 5_000;

export interface RedisBusDeps {
  readonly instanceId: string;
  readonly clock: Clock;
  /** 32 bytes that all gateways share and Redis does not know: what it carries of events it can neither read nor make up. */
  readonly secret: () => Uint8Array;
  readonly logError: LogError;
}

/** The bus between gateways that share a Redis. What is published while it is away is lost, and found by polling. */
export function createRedisBus(target: RedisTarget, deps: RedisBusDeps): Promise<Bus> {
  return createRelayedBus((listener) => openRedisCarrier(target, listener, deps), deps);
}

async function openRedisCarrier(
  target: RedisTarget,
  listener: CarrierListener,
  { instanceId, clock, secret, logError }: RedisBusDeps,
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
  let bodies: Promise<number> | null = null;
  let hasBadBodies = false;

  function hearBodies(text: string): void {
    const space = text.indexOf(' ');
    if (text.slice(0, space) === instanceId) return;
    const opened = openBodies(text.slice(space + 1), secret());
    if (opened !== null) listener.heardBodies(opened);
    else if (!hasBadBodies)
      logError(new Error('not sealed with this key'), 'events of another gateway are read from the store');
    hasBadBodies = opened === null;
  }

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
    async sendBodies(text) {
      await redis.publish(bodiesChannel, `${instanceId} ${sealBodies(text, secret())}`);
    },
    takeBodies(isTaking) {
      const before = bodies;
      if (isTaking) bodies ??= redis.subscribe<string>(bodiesChannel, hearBodies);
      else bodies = null;
      if (!isTaking) before?.then((id) => redis.unsubscribe(id)).catch(() => {});
      else if (!before) bodies?.catch((error) => logError(error, 'bodies of events could not be subscribed to'));
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
