import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest';
import type { Bus } from '../../src/bus/bus.ts';
import { createRedisBus } from '../../src/bus/redis-bus.ts';
import { systemClock } from '../../src/clock.ts';
import { parseRedisUrl, type RedisTarget } from '../../src/redis/target.ts';
import { freePort } from '../faults/free-port.ts';
import { eventually } from '../support/eventually.ts';
import {
  hasRedisServer,
  type RedisServer,
  startRedis,
  startRedisCluster,
  startSentinel,
} from '../support/redis-server.ts';
import { group, testBus, testBusBetweenGateways } from './contract.ts';

const redisUrl = inject('redisUrl');
const buses: Bus[] = [];
const logged: string[] = [];

afterEach(async () => {
  for (const bus of buses.splice(0)) await bus.close();
  logged.length = 0;
});

function targetOf(url: string): RedisTarget {
  const target = parseRedisUrl(url);
  if (typeof target === 'string') throw new Error(target);
  return target;
}

const secret = () => new Uint8Array(32).fill(1);

async function join(url: string, instanceId: string = randomUUID(), ofGateway = secret): Promise<Bus> {
  const bus = await createRedisBus(targetOf(url), {
    ...{ instanceId, clock: systemClock, secret: ofGateway },
    logError: (_error, context) => logged.push(context),
  });
  buses.push(bus);
  return bus;
}

/** Two gateways, and what the second one hears of the first: positions, and that something was missed. */
async function pair(url: string) {
  const [here, there] = [await join(url), await join(url)];
  const heard: (number | 'missed')[] = [];
  there.subscribe('stored', ({ position }) => heard.push(position));
  there.subscribe('missed', () => heard.push('missed'));
  return { here, there, heard };
}

/** Publishes until something comes through; the first position that did. */
async function untilCarried(bus: Bus, heard: readonly unknown[], from: number): Promise<number> {
  let position = from;
  return eventually(() => {
    bus.publish('stored', { position: ++position });
    return heard.find((each): each is number => typeof each === 'number' && each > from);
  }, 30_000);
}

describe.skipIf(redisUrl === null)('on a Redis of others', () => {
  const open: Parameters<typeof testBus>[1] = (logError, instanceId) =>
    createRedisBus(targetOf(redisUrl ?? ''), { instanceId, clock: systemClock, secret, logError });
  testBus('the bus over Redis', open);
});

describe.skipIf(!hasRedisServer())('with a Redis of its own', () => {
  let redis: RedisServer;
  beforeAll(async () => {
    redis = await startRedis();
  });
  afterAll(() => redis.drop());

  testBusBetweenGateways('the bus over Redis', (logError, instanceId) =>
    createRedisBus(targetOf(redis.url), { instanceId, clock: systemClock, secret, logError }),
  );

  it('has one subscription for each gateway, however many listen, and none when they have gone', async () => {
    const subscriptions = () => redis.ask('pubsub', 'numsub', 'aegis:hints');
    const connections = async () => (await redis.ask('client', 'list')).split('\n').length;
    const before = await connections();
    for (let round = 0; round < 3; round++) {
      const [here, there] = [await join(redis.url), await join(redis.url)];
      const leaves = Array.from({ length: 1_000 }, () => there.subscribe('queued', () => {}));
      expect(await subscriptions()).toBe('aegis:hints\n2');
      expect(await connections()).toBe(before + 4);
      for (const leave of leaves) leave();
      await Promise.all([here.close(), there.close()]);
      await eventually(async () => (await subscriptions()) === 'aegis:hints\n0' && (await connections()) === before);
    }
    expect(await redis.ask('pubsub', 'channels')).toBe('');
  });

  it('drops what is not one of its texts, says so once, and goes on', async () => {
    const { here, heard } = await pair(redis.url);
    for (const text of ['not json', '[]', 'not json']) await redis.ask('publish', 'aegis:hints', text);
    here.publish('stored', { position: 1 });
    await eventually(() => heard.includes(1));
    expect(logged).toEqual(Array(2).fill('the bus brought what cannot be read'));
  });

  it('carries events sealed, and takes none that were not sealed with the key of these gateways', async () => {
    const { here, there, heard } = await pair(redis.url);
    const stranger = await join(redis.url, 'stranger', () => new Uint8Array(32).fill(2));
    const carried: string[] = [];
    const listener = new Redis(redis.url);
    await listener.subscribe('aegis:bodies');
    listener.on('message', (_channel, text) => carried.push(text));
    const bodies: string[] = [];
    there.subscribe('bodies', ({ text }) => bodies.push(text));
    let position = 0;
    await eventually(() => {
      here.publish('events', group(++position));
      return bodies.length > 0;
    });
    expect(carried.length).toBeGreaterThan(0);
    const plain = carried.map((text) => `${text}${Buffer.from(text.split(' ')[1] ?? '', 'base64').toString('latin1')}`);
    expect(plain.join('')).not.toContain('group');

    await eventually(() => heard.includes(position));
    bodies.length = 0;
    const [sealed = ''] = carried;
    const [origin, base64 = ''] = sealed.split(' ');
    const changed = Buffer.from(base64, 'base64').map((byte, index) => (index === 20 ? byte ^ 1 : byte));
    const forgeries = [`x ${Buffer.from(changed).toString('base64')}`, 'x', '', `${origin} [{"form":1}]`, 'x AAAA'];
    for (const text of forgeries) await redis.ask('publish', 'aegis:bodies', text);
    stranger.publish('events', group(1_000));
    await eventually(() => heard.includes(1_000));
    expect(bodies).toEqual([]);
    expect(logged).toEqual(['events of another gateway are read from the store']);
    here.publish('events', group(1_001));
    await eventually(() => heard.includes(1_001));
    expect(bodies).toHaveLength(1);
    listener.disconnect();
  });

  it('says that something may have been missed as soon as a cut connection is back', async () => {
    const { here, heard } = await pair(redis.url);
    here.publish('stored', { position: 1 });
    await eventually(() => heard.includes(1));
    heard.length = 0;
    await redis.ask('client', 'kill', 'type', 'pubsub');
    await eventually(() => heard.includes('missed'));
    await untilCarried(here, heard, 1);
  });

  it('loses what is published while Redis is dead, and has the others look when it is back', async () => {
    const { here, heard } = await pair(redis.url);
    here.publish('stored', { position: 1 });
    await eventually(() => heard.includes(1));
    await redis.kill();
    await eventually(() => {
      here.publish('stored', { position: 2 });
      return here.lost > 0;
    });
    await expect(here.check()).rejects.toThrow();
    heard.length = 0;
    await redis.start();
    await untilCarried(here, heard, 2);
    await eventually(() => heard.includes('missed'));
    await here.check();
  });

  it('is hurt by no FLUSHALL', async () => {
    const { here, heard } = await pair(redis.url);
    await redis.ask('flushall');
    here.publish('stored', { position: 1 });
    await eventually(() => heard.includes(1));
    expect(heard).toEqual([1]);
  });

  it('keeps a bounded number of hints while Redis is stopped, and has the others look when it goes on', async () => {
    const { here, heard } = await pair(redis.url);
    here.publish('stored', { position: 1 });
    await eventually(() => heard.includes(1));
    heard.length = 0;
    redis.signal('SIGSTOP');
    const agentUids = Array.from({ length: 1_000 }, () => randomUUID());
    const memoryBefore = process.memoryUsage().heapUsed;
    for (let turn = 0; turn < 2_000; turn++) {
      here.publish('queued', { agentUids: agentUids.map((uid) => `${uid}${turn}`) });
      if (turn % 20 === 0) await new Promise(setImmediate);
    }
    // Two million were told of; ten thousand, and what two texts hold, may wait.
    expect(here.lost).toBeGreaterThan(1_900_000);
    expect(process.memoryUsage().heapUsed - memoryBefore).toBeLessThan(100 * 1024 * 1024);
    redis.signal('SIGCONT');
    await eventually(() => heard.includes('missed'));
    await untilCarried(here, heard, 1);
  });

  it('gives up a connection that owes an answer for five seconds, and is back soon after', async () => {
    const { here, heard } = await pair(redis.url);
    await redis.ask('client', 'pause', '6000', 'all');
    for (let position = 1; position <= 3; position++) here.publish('stored', { position });
    await eventually(() => here.lost > 0);
    heard.length = 0;
    await untilCarried(here, heard, 3);
    await eventually(() => heard.includes('missed'));
  });
});

it('fails its check where Redis is not there, and costs no one anything', async () => {
  const bus = await join(`redis://127.0.0.1:${await freePort()}`);
  await expect(bus.check()).rejects.toThrow();
  let heard = 0;
  bus.subscribe('stored', () => heard++);
  bus.publish('stored', { position: 1 });
  expect(heard).toBe(1);
  await eventually(() => bus.lost === 1);
});

describe.skipIf(!hasRedisServer())('on a cluster', () => {
  let nodes: readonly RedisServer[];
  beforeAll(async () => {
    nodes = await startRedisCluster();
  });
  afterAll(() => Promise.all(nodes.map((node) => node.drop())));

  it('carries hints whatever node each gateway talks to, and goes on over another one when its node dies', async () => {
    const addresses = nodes.map(({ port }) => `127.0.0.1:${port}`);
    const [first, ...others] = addresses;
    const here = await join(`redis+cluster://${addresses.join(',')}`);
    const there = await join(`redis+cluster://${[...others, first].join(',')}`);
    const heard: (number | 'missed')[] = [];
    there.subscribe('stored', ({ position }) => heard.push(position));
    there.subscribe('missed', () => heard.push('missed'));
    for (let position = 1; position <= 100; position++) {
      here.publish('stored', { position });
      await new Promise(setImmediate);
    }
    await eventually(() => heard.at(-1) === 100);
    expect(heard).not.toContain('missed');
    expect([...heard].sort((one, other) => Number(one) - Number(other))).toEqual(heard);
    await nodes[0]?.kill();
    await untilCarried(here, heard, 100);
    await nodes[1]?.kill();
    heard.length = 0;
    await eventually(() => {
      here.publish('stored', { position: 1_000 });
      return heard.includes(1_000);
    });
  });
});

describe.skipIf(!hasRedisServer())('with a sentinel', () => {
  let group: Awaited<ReturnType<typeof startSentinel>>;
  beforeAll(async () => {
    group = await startSentinel();
  });
  afterAll(() => Promise.all(Object.values(group).map((server) => server.drop())));

  it('follows the master to another server', async () => {
    const { here, heard } = await pair(`redis+sentinel://127.0.0.1:${group.sentinel.port}/fleet`);
    here.publish('stored', { position: 1 });
    await eventually(() => heard.includes(1));
    await group.master.kill();
    await untilCarried(here, heard, 1);
    await eventually(() => heard.includes('missed'));
    expect(await group.replica.ask('info', 'replication')).toContain('role:master');
    expect(await group.replica.ask('pubsub', 'numsub', 'aegis:hints')).toBe('aegis:hints\n2');
  });
});
