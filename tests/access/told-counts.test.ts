import { expect, test } from 'vitest';
import { createRateLimits, type RateLimits, windowSeconds } from '../../src/access/rate-limits.ts';
import { createToldCounts } from '../../src/access/told-counts.ts';

const perSecond = 100;
const inWindow = perSecond * windowSeconds;

/** Workers whose ticks the test makes; what one tells the others hear at once. */
function workers(count: number) {
  const listeners = new Set<(text: string) => void>();
  const ticks = new Set<() => void>();
  const errors: unknown[] = [];
  const clock = {
    now: () => 0,
    after: () => () => {},
    every(_intervalMs: number, task: () => void) {
      ticks.add(task);
      return () => ticks.delete(task);
    },
  };
  let told = 0;
  const all = Array.from({ length: count }, () => {
    let own = (_text: string) => {};
    const shared = createToldCounts(
      {
        async tell(text) {
          told++;
          for (const listener of listeners) if (listener !== own) listener(text);
        },
        onTold(listener) {
          own = listener;
          listeners.add(listener);
          return () => listeners.delete(listener);
        },
      },
      { clock, logError: (error) => errors.push(error) },
    );
    return { shared, limits: createRateLimits({ consumerPerSecond: perSecond, addressPerSecond: null }, shared) };
  });
  const tick = () => {
    for (const task of ticks) task();
  };
  return { all, tick, listeners, ticks, errors, told: () => told };
}

async function isRefused(limits: RateLimits, id: string): Promise<boolean> {
  try {
    await limits.countConsumer({ kind: 'api-key', id });
    return false;
  } catch {
    return true;
  }
}

test('workers count together what each of them lets through, each request once', async () => {
  const { all, tick } = workers(2);
  const [one, other] = all.map(({ limits }) => limits);
  if (!one || !other) throw new Error('two');
  // Whoever has never been asked has nothing to limit yet.
  await isRefused(other, 'another');
  for (let left = inWindow / 2; left > 0; left--) await isRefused(one, 'key');
  tick();
  tick();
  for (let left = inWindow / 2; left > 0; left--) expect(await isRefused(other, 'key')).toBe(false);
  expect(await isRefused(other, 'key')).toBe(true);
  expect(await isRefused(one, 'key')).toBe(false);
  tick();
  expect(await isRefused(one, 'key')).toBe(true);
  expect(await isRefused(one, 'another')).toBe(false);
});

test('who has counted nothing tells nothing, and what cannot be read is passed over', async () => {
  const { all, tick, listeners, ticks, errors, told } = workers(2);
  tick();
  expect(told()).toBe(0);
  for (const listener of listeners) listener('not json');
  expect(errors).toHaveLength(2);
  for (const { shared } of all) shared.close();
  expect([listeners.size, ticks.size]).toEqual([0, 0]);
});
