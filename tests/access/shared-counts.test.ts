import { randomUUID } from 'node:crypto';
import { afterEach, expect, inject, test } from 'vitest';
import { createRateLimits, type RateLimits, windowSeconds } from '../../src/access/rate-limits.ts';
import { createSharedCounts } from '../../src/access/shared-counts.ts';
import { systemClock } from '../../src/clock.ts';
import { parseRedisUrl } from '../../src/redis/target.ts';
import { freePort } from '../faults/free-port.ts';
import { eventually } from '../support/eventually.ts';

const perSecond = 1_000;
const inWindow = perSecond * windowSeconds;
const redisUrl = inject('redisUrl');
const closings: (() => void)[] = [];
afterEach(() => {
  for (const close of closings.splice(0)) close();
});

function gateway(url: string): RateLimits {
  const target = parseRedisUrl(url);
  if (typeof target === 'string') throw new Error(target);
  const shared = createSharedCounts(target, { clock: systemClock, logError: () => {} });
  closings.push(() => shared.close());
  return createRateLimits({ consumerPerSecond: perSecond, addressPerSecond: null }, shared);
}

async function isRefused(limits: RateLimits, id: string): Promise<boolean> {
  try {
    await limits.countConsumer({ kind: 'api-key', id: id });
    return false;
  } catch {
    return true;
  }
}

test.skipIf(redisUrl === null)('gateways count together what each of them lets through', async () => {
  const [one, other] = [gateway(redisUrl ?? ''), gateway(redisUrl ?? '')];
  const [id, another] = [randomUUID(), randomUUID()];
  // Neither has had too many by itself. Counts that come before Redis answers are not shared, so it may take a few more.
  await eventually(async () => {
    for (let left = inWindow / 50; left > 0; left--) await isRefused(one, id);
    return isRefused(other, id);
  }, 15_000);
  expect(await isRefused(other, another)).toBe(false);
});

test('where Redis is away each gateway counts for itself, and no request waits', async () => {
  const limits = gateway(`redis://127.0.0.1:${await freePort()}`);
  const id = randomUUID();
  let through = 0;
  for (let left = inWindow + 10; left > 0; left--) if (!(await isRefused(limits, id))) through++;
  expect(through).toBe(inWindow);
});
