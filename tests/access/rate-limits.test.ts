import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createRateLimits, maxFailures, windowSeconds } from '../../src/access/rate-limits.ts';
import { AegisError } from '../../src/errors.ts';

// The library keeps time by the process's own clock.
beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const perSecond = 3;
const inWindow = perSecond * windowSeconds;

/** How many of so many tries are let through, and what the first refusal says. */
async function letThrough(tries: number, count: () => Promise<void>) {
  let through = 0;
  let refusal: AegisError | null = null;
  for (let left = tries; left > 0; left--) {
    try {
      await count();
      through++;
    } catch (error) {
      if (!(error instanceof AegisError)) throw error;
      refusal ??= error;
    }
  }
  return { through, refusal };
}

describe('a consumer', () => {
  test('gets what its rate gives in the window, and again in the next', async () => {
    const limits = createRateLimits({ consumerPerSecond: perSecond, addressPerSecond: null }, null);
    const count = () => limits.countConsumer({ kind: 'api-key', id: 'key' });
    expect(await letThrough(inWindow, count)).toEqual({ through: inWindow, refusal: null });
    vi.advanceTimersByTime(windowSeconds * 1_000 - 2_500);
    const { through, refusal } = await letThrough(5, count);
    expect(through).toBe(0);
    expect(refusal).toMatchObject({ code: 'RATE_LIMITED', retryAfterMs: 2_500, retryAfterSeconds: 3 });
    vi.advanceTimersByTime(2_500);
    expect((await letThrough(inWindow + 1, count)).through).toBe(inWindow);
  });

  test('is not held to what another asks', async () => {
    const limits = createRateLimits({ consumerPerSecond: perSecond, addressPerSecond: null }, null);
    await letThrough(inWindow + 1, () => limits.countConsumer({ kind: 'api-key', id: 'one' }));
    expect((await letThrough(inWindow, () => limits.countConsumer({ kind: 'api-key', id: 'other' }))).through).toBe(
      inWindow,
    );
  });
});

describe('an address', () => {
  const limited = () => createRateLimits({ consumerPerSecond: null, addressPerSecond: perSecond }, null);

  test('gets what its rate gives; every address of an IPv6 /64 is one', async () => {
    const limits = limited();
    let host = 0;
    const countOfNetwork = (network: string) => () => limits.countAddress(`${network}::${(++host).toString(16)}`);
    expect((await letThrough(inWindow + 1, countOfNetwork('2001:db8:1:1'))).through).toBe(inWindow);
    expect((await letThrough(inWindow, countOfNetwork('2001:db8:1:2'))).through).toBe(inWindow);
    expect((await letThrough(inWindow + 1, () => limits.countAddress('192.0.2.1'))).through).toBe(inWindow);
    expect((await letThrough(inWindow, () => limits.countAddress('192.0.2.2'))).through).toBe(inWindow);
  });

  test(`that shows more than ${maxFailures} wrong credentials within a minute is told to come back, and heard with good ones`, async () => {
    const limits = limited();
    const fail = () => limits.countFailure('192.0.2.1');
    expect((await letThrough(maxFailures - 1, fail)).through).toBe(maxFailures - 1);
    vi.advanceTimersByTime(20_000);
    expect(await letThrough(2, fail)).toMatchObject({
      through: 1,
      refusal: { code: 'RATE_LIMITED', retryAfterMs: 40_000 },
    });
    expect((await letThrough(1, () => limits.countAddress('192.0.2.1'))).through).toBe(1);
    expect((await letThrough(1, () => limits.countFailure('192.0.2.2'))).through).toBe(1);
    vi.advanceTimersByTime(40_000);
    expect((await letThrough(1, fail)).through).toBe(1);
  });
});

test('without limits nobody is counted', async () => {
  const limits = createRateLimits({ consumerPerSecond: null, addressPerSecond: null }, null);
  for (let left = maxFailures + 1; left > 0; left--) await limits.countFailure('192.0.2.1');
  expect((await letThrough(100_000, () => limits.countAddress('192.0.2.1'))).through).toBe(100_000);
  expect(vi.getTimerCount()).toBe(0);
});

test('what is counted is forgotten with its window', async () => {
  const limits = createRateLimits({ consumerPerSecond: perSecond, addressPerSecond: perSecond }, null);
  for (let number = 0; number < 1_000; number++) await limits.countConsumer({ kind: 'api-key', id: String(number) });
  expect(vi.getTimerCount()).toBe(1_000);
  vi.advanceTimersByTime(windowSeconds * 1_000);
  expect(vi.getTimerCount()).toBe(0);
});
