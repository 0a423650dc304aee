import { RedisPubSub } from 'graphql-redis-subscriptions';
import { Redis } from 'ioredis';
import { z } from 'zod';
import type { Bus, Topic, Topics } from './bus.ts';
import { createMemoryBus } from './memory-bus.ts';
import { parseShared, type SharedTopic, sharedTopics } from './topic-codecs.ts';

/** What goes over Redis: who sent it, so that nobody hears itself twice, and what. */
const envelope = z.object({ origin: z.string(), message: z.unknown() });

const channelOf = (topic: Topic) => `aegis:${topic}`;
const maxReconnectDelayMs = 2_000;

/**
 * The bus between gateways: listeners of this process are called at once, those of the others through Redis. One subscription
 * for each topic, never one for each listener. What is published while Redis is away is lost to the other gateways, who
 * find it in the database by polling.
 */
export async function createRedisBus(
  url: string,
  instanceId: string,
  logError: (error: unknown, context: string) => void,
): Promise<Bus> {
  const local = createMemoryBus(logError);
  const retryStrategy = (attempt: number) => Math.min(100 * attempt, maxReconnectDelayMs);
  const subscriber = new Redis(url, { retryStrategy, maxRetriesPerRequest: null, enableReadyCheck: false });
  // Without an offline queue: a hint that is minutes old helps nobody.
  const publisher = new Redis(url, { retryStrategy, maxRetriesPerRequest: 0, enableOfflineQueue: false });
  for (const client of [subscriber, publisher])
    client.on('error', (error) => logError(error, 'the connection to Redis failed'));
  const redis = new RedisPubSub({ publisher, subscriber });

  function receive<T extends SharedTopic>(topic: T, raw: unknown): void {
    try {
      const { origin, message } = envelope.parse(raw);
      if (origin !== instanceId) local.publish(topic, parseShared(topic, message));
    } catch (error) {
      logError(error, `a message on ${channelOf(topic)} is not one of ours`);
    }
  }

  function isShared(topic: Topic): topic is SharedTopic {
    return topic !== 'events';
  }

  // Not awaited where Redis is away: the subscriptions are made once it is there.
  const subscribing = Promise.all(
    sharedTopics.map((topic) => redis.subscribe(channelOf(topic), (raw: unknown) => receive(topic, raw))),
  );
  await Promise.race([subscribing, new Promise((resolve) => subscriber.once('error', resolve))]);
  subscribing.catch((error) => logError(error, 'the topics of the bus could not be subscribed to'));

  return {
    publish<T extends Topic>(topic: T, message: Topics[T]) {
      local.publish(topic, message);
      if (!isShared(topic)) return;
      redis
        .publish(channelOf(topic), { origin: instanceId, message })
        .catch((error) => logError(error, `nothing could be published on ${channelOf(topic)}`));
    },
    subscribe: local.subscribe,
    async check() {
      await publisher.ping();
    },
    async close() {
      await local.close();
      subscriber.disconnect();
      publisher.disconnect();
    },
  };
}
