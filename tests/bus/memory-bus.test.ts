import { describe, expect, it } from 'vitest';
import { createBacklog } from '../../src/bus/backlog.ts';
import { endable } from '../../src/bus/endable.ts';
import { createMemoryBus } from '../../src/bus/memory-bus.ts';
import { testBus } from './contract.ts';

const slow = expect.objectContaining({ code: 'SLOW_CONSUMER' });

testBus('the bus of one process', async (logError) => createMemoryBus(logError));

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
