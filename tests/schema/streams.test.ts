import { describe, expect, test } from 'vitest';
import { streamOf } from '../../src/schema/streams.ts';

/** A source that gives what is pushed, ends with its signal, and tells whether it still listens. */
function createSource() {
  const queue: number[] = [];
  let wake = () => {};
  const source = {
    listening: 0,
    push(item: number) {
      queue.push(item);
      wake();
    },
    async *open(signal: AbortSignal): AsyncGenerator<number> {
      const onAbort = () => wake();
      source.listening++;
      signal.addEventListener('abort', onAbort);
      try {
        while (!signal.aborted) {
          const item = queue.shift();
          if (item === undefined) await new Promise<void>((resolve) => (wake = resolve));
          else if (item < 0) throw new RangeError('negative');
          else yield item;
        }
      } finally {
        source.listening--;
        signal.removeEventListener('abort', onAbort);
      }
    },
  };
  return source;
}

function stage(admit: (item: number) => Promise<number | null> | number | null = (item) => item) {
  const source = createSource();
  let forgotten = 0;
  const loaders = { forget: () => forgotten++ };
  const stream = streamOf({ loaders }, (signal) => source.open(signal), admit);
  return { source, stream, forgotten: () => forgotten };
}

const ended = { done: true, value: undefined };

describe('a stream', () => {
  test('gives what is admitted, in order, and forgets what was loaded before each', async () => {
    const { source, stream, forgotten } = stage((item) => (item % 2 === 0 ? item * 10 : null));
    for (const item of [1, 2, 3, 4]) source.push(item);
    expect(await stream.next()).toEqual({ done: false, value: 20 });
    expect(await stream.next()).toEqual({ done: false, value: 40 });
    expect(forgotten()).toBe(4);
    await stream.return?.();
  });

  test('that is returned before its first item was asked for holds nothing, and never will', async () => {
    const { source, stream } = stage();
    expect(await stream.return?.()).toEqual(ended);
    expect(await stream.next()).toEqual(ended);
    expect(source.listening).toBe(0);
  });

  test('that is returned while an item is awaited lets go and ends that wait', async () => {
    const { source, stream } = stage();
    const pending = stream.next();
    await Promise.resolve();
    expect(source.listening).toBe(1);
    expect(await stream.return?.()).toEqual(ended);
    expect(await pending).toEqual(ended);
    expect(source.listening).toBe(0);
  });

  test('that is returned while an item is being admitted lets go', async () => {
    let admit: (item: number) => void = () => {};
    const { source, stream } = stage(() => new Promise<number>((resolve) => (admit = resolve)));
    source.push(1);
    const pending = stream.next();
    await new Promise((resolve) => setImmediate(resolve));
    const returned = stream.return?.();
    admit(1);
    await Promise.all([pending, returned]);
    expect(source.listening).toBe(0);
  });

  test('that is returned between two items, or twice, lets go', async () => {
    const { source, stream } = stage();
    source.push(1);
    await stream.next();
    await stream.return?.();
    await stream.return?.();
    expect(source.listening).toBe(0);
  });

  test('lets go where its source fails, and where an item cannot be admitted', async () => {
    const broken = stage();
    broken.source.push(-1);
    await expect(broken.stream.next()).rejects.toThrow('negative');
    expect(broken.source.listening).toBe(0);
    const refusing = stage(() => Promise.reject(new Error('cannot load')));
    refusing.source.push(1);
    await expect(refusing.stream.next()).rejects.toThrow('cannot load');
    expect(refusing.source.listening).toBe(0);
  });

  test('that something is thrown into lets go and throws it', async () => {
    const { source, stream } = stage();
    const pending = stream.next();
    await expect(stream.throw?.(new Error('stop'))).rejects.toThrow('stop');
    expect(await pending).toEqual(ended);
    expect(source.listening).toBe(0);
  });
});
