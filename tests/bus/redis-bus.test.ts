import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { afterEach, describe, expect, inject, it } from 'vitest';
import type { Bus } from '../../src/bus/bus.ts';
import { createRedisBus } from '../../src/bus/redis-bus.ts';
import type { Message } from '../../src/messages/message.ts';
import { eventually } from '../support/eventually.ts';

const redisUrl = inject('redisUrl');
const errors: string[] = [];
const buses: Bus[] = [];

async function gatewayBus(): Promise<Bus> {
  const bus = await createRedisBus(redisUrl ?? '', randomUUID(), (_error, context) => errors.push(context));
  buses.push(bus);
  return bus;
}

afterEach(async () => {
  for (const bus of buses.splice(0)) await bus.close();
  errors.length = 0;
});

const message: Message = {
  id: randomUUID(),
  sequence: 7,
  agentUid: randomUUID(),
  agentName: 'host-1',
  orgId: 'default-org',
  kind: 'policies',
  type: 'request',
  priority: 'high',
  status: 'sent',
  payload: { createdAt: '2026-11-23T12:00:00Z', list: [1, null] },
  attempts: 1,
  maxRetries: 3,
  createdAt: new Date(1_795_436_172_000),
  sentAt: new Date(1_795_436_173_000),
  deliveredAt: null,
  expiresAt: new Date(1_795_439_772_000),
  failure: null,
  broadcastId: null,
  traceparent: null,
  revision: 1,
  history: [{ revision: 1, status: 'sent', at: new Date(), attempts: 1, failure: null }],
};

describe.skipIf(redisUrl === null)('the bus between gateways', () => {
  it('brings what one gateway publishes to the others, times as times and payloads untouched', async () => {
    const [here, there] = [await gatewayBus(), await gatewayBus()];
    const heard: unknown[] = [];
    there.subscribe('messages', (messages) => heard.push(...messages));
    here.publish('messages', [message]);
    await eventually(() => heard.length === 1);
    expect(heard).toEqual([message]);
  });

  it('brings messages of a version that knows no trace context', async () => {
    const there = await gatewayBus();
    const heard: unknown[] = [];
    there.subscribe('messages', (messages) => heard.push(...messages));
    const { traceparent: _, ...before } = message;
    const publisher = new Redis(redisUrl ?? '');
    await publisher.publish('aegis:messages', JSON.stringify({ origin: 'before', message: [before] }));
    await publisher.quit();
    await eventually(() => heard.length === 1);
    expect(heard).toEqual([message]);
  });

  it('calls the listeners of its own process at once, and once', async () => {
    const [here, there] = [await gatewayBus(), await gatewayBus()];
    const heardHere: number[] = [];
    const heardThere: number[] = [];
    here.subscribe('stored', ({ position }) => heardHere.push(position));
    there.subscribe('stored', ({ position }) => heardThere.push(position));
    here.publish('stored', { position: 1 });
    expect(heardHere).toEqual([1]);
    await eventually(() => heardThere.length === 1);
    expect(heardHere).toEqual([1]);
  });

  it('keeps the order of one publisher within a topic', async () => {
    const [here, there] = [await gatewayBus(), await gatewayBus()];
    const heard: number[] = [];
    there.subscribe('stored', ({ position }) => heard.push(position));
    const sent = Array.from({ length: 1_000 }, (_, index) => index + 1);
    for (const position of sent) here.publish('stored', { position });
    await eventually(() => heard.length === sent.length);
    expect(heard).toEqual(sent);
  });

  it('hears nothing after it has unsubscribed', async () => {
    const [here, there] = [await gatewayBus(), await gatewayBus()];
    const heard: string[][] = [];
    const others: string[][] = [];
    const unsubscribe = there.subscribe('queued', ({ agentUids }) => heard.push([...agentUids]));
    there.subscribe('queued', ({ agentUids }) => others.push([...agentUids]));
    unsubscribe();
    here.publish('queued', { agentUids: ['a'] });
    await eventually(() => others.length === 1);
    expect(heard).toEqual([]);
  });

  it('drops what is not one of its messages, says so, and goes on', async () => {
    const there = await gatewayBus();
    const heard: string[][] = [];
    there.subscribe('queued', ({ agentUids }) => heard.push([...agentUids]));
    const stranger = new Redis(redisUrl ?? '');
    await stranger.publish('aegis:queued', 'not json');
    await stranger.publish('aegis:queued', JSON.stringify({ origin: 'x', message: { agentUids: 'all' } }));
    await stranger.publish('aegis:queued', JSON.stringify({ origin: 'x', message: { agentUids: ['b'] } }));
    await eventually(() => heard.length === 1);
    stranger.disconnect();
    expect(heard).toEqual([['b']]);
    expect(errors.length).toBe(2);
  });

  it('goes on by itself after its connections were cut', async () => {
    const [here, there] = [await gatewayBus(), await gatewayBus()];
    const heard: number[] = [];
    there.subscribe('stored', ({ position }) => heard.push(position));
    const operator = new Redis(redisUrl ?? '');
    await operator.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    operator.disconnect();
    let position = 0;
    await eventually(() => {
      here.publish('stored', { position: ++position });
      return heard.length > 0;
    });
  });

  it('fails its check where Redis is not there', async () => {
    const bus = await createRedisBus('redis://127.0.0.1:1', randomUUID(), (_error, context) => errors.push(context));
    buses.push(bus);
    await expect(bus.check()).rejects.toThrow();
    bus.publish('stored', { position: 1 });
    await eventually(() => errors.some((context) => context.includes('aegis:stored')));
  });
});
