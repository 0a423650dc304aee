import { describe, expect, it } from 'vitest';
import { createBacklog } from '../../src/bus/backlog.ts';
import { endable } from '../../src/bus/endable.ts';
import { iterate } from '../../src/bus/iterate.ts';
import { createMemoryBus } from '../../src/bus/memory-bus.ts';
import { testBus } from './contract.ts';

const slow = expect.objectContaining({ code: 'SLOW_CONSUMER' });
const hint = (...agentUids: string[]) => ({ agentUids });

testBus('the bus of one process', async (logError) => createMemoryBus(logError));

describe('a topic as a stream', () => {
  const presence = (agentUid: string) => ({ agentUid, connected: true, at: new Date(), reason: null });

  it('gives what is picked from the first `next` on, and unsubscribes at its end', async () => {
    const bus = createMemoryBus(() => {});
    const ending = new AbortController();
    const picked = iterate(bus, 'queued', ({ agentUids }) => agentUids.map((uid) => ({ uid })), ending.signal);
    bus.publish('queued', hint('before'));
    const first = picked.next();
    bus.publish('queued', hint('a', 'b'));
    bus.publish('queued', hint());
    bus.publish('queued', hint('c'));
    expect((await first).value).toEqual({ uid: 'a' });
    expect((await picked.next()).value).toEqual({ uid: 'b' });
    expect((await picked.next()).value).toEqual({ uid: 'c' });
    const waiting = picked.next();
    ending.abort();
    expect((await waiting).done).toBe(true);
    bus.publish('queued', hint('after'));
    expect((await picked.next()).done).toBe(true);
  });

  it('tells a reader that is too slow, and keeps nothing for it meanwhile', async () => {
    const bus = createMemoryBus(() => {});
    const changes = iterate(bus, 'presence', (change) => [change], new AbortController().signal);
    const first = changes.next();
    bus.publish('presence', presence('first'));
    expect((await first).value).toMatchObject({ agentUid: 'first' });
    for (let index = 0; index < 100_000; index++) bus.publish('presence', presence(`agent-${index}`));
    expect((await changes.next()).value).toMatchObject({ agentUid: 'agent-0' });
    for (let index = 0; index < 2; index++) bus.publish('presence', presence('one too many'));
    await expect(changes.next()).rejects.toEqual(slow);
    expect((await changes.next()).done).toBe(true);
  });
});

describe('a backlog', () => {
  interface Item {
    readonly id: number;
    readonly bytes: number;
  }
  const item = (id: number, bytes = 0): Item => ({ id, bytes });

  it('gives items in their order, across many more than it moves at once', async () => {
    const backlog = createBacklog<Item>({ maxItems: 5_000 });
    const given: number[] = [];
    for (let round = 0; round < 4; round++) {
      for (let index = 0; index < 2_500; index++) backlog.offer(item(round * 2_500 + index));
      for (let index = 0; index < 2_500; index++) given.push((await backlog.next())?.id ?? -1);
    }
    expect(given).toEqual(given.map((_, index) => index));
  });

  it('holds as many items as it may, and not one more', async () => {
    const fits = createBacklog<Item>({ maxItems: 2 });
    for (const id of [1, 2]) fits.offer(item(id));
    expect((await fits.next())?.id).toBe(1);
    fits.offer(item(3));
    expect((await fits.next())?.id).toBe(2);
    fits.offer(item(4));
    fits.offer(item(5));
    await expect(fits.next()).rejects.toEqual(slow);
    await expect(fits.next()).rejects.toEqual(slow);
  });

  it('holds as many bytes as it may, and not one more', async () => {
    const bounds = { maxItems: 100, maxBytes: 10, sizeBytes: ({ bytes }: Item) => bytes };
    const fits = createBacklog(bounds);
    fits.offer(item(1, 4));
    fits.offer(item(2, 6));
    await fits.next();
    fits.offer(item(3, 4));
    expect((await fits.next())?.id).toBe(2);
    fits.offer(item(4, 7));
    await expect(fits.next()).rejects.toEqual(slow);
  });

  it('sets a reader free that waits when it ends, and when it overruns', async () => {
    const ended = createBacklog<Item>({ maxItems: 1 });
    const waiting = ended.next();
    ended.end();
    expect(await waiting).toBeUndefined();
    ended.offer(item(1));
    expect(await ended.next()).toBeUndefined();
    const overrun = createBacklog<Item>({ maxItems: 0 });
    const failing = overrun.next();
    overrun.offer(item(1));
    await expect(failing).rejects.toEqual(slow);
  });
});

describe('an endable iterator', () => {
  it('opens nothing before its first `next`, and nothing after its end', async () => {
    let opened = 0;
    const open = () =>
      endable(new AbortController().signal, async function* () {
        opened++;
        yield 1;
      });
    const unused = open();
    await unused.return?.();
    expect((await unused.next()).done).toBe(true);
    const aborted = endable(AbortSignal.abort(), async function* () {
      opened++;
      yield 1;
    });
    expect((await aborted.next()).done).toBe(true);
    expect(opened).toBe(0);
    expect((await open().next()).value).toBe(1);
    expect(opened).toBe(1);
  });

  it('ends while `next` waits, and lets what it opened clean up', async () => {
    let isClean = false;
    const waiting = endable(new AbortController().signal, async function* (signal) {
      try {
        await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
        yield* [];
      } finally {
        isClean = true;
      }
    });
    const next = waiting.next();
    await waiting.return?.();
    expect((await next).done).toBe(true);
    expect(isClean).toBe(true);
  });

  it('passes an error on once and is over then', async () => {
    const failing = endable(new AbortController().signal, async function* () {
      yield 1;
      throw new Error('broken');
    });
    expect((await failing.next()).value).toBe(1);
    await expect(failing.next()).rejects.toThrow('broken');
    expect((await failing.next()).done).toBe(true);
  });
});
