import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createStreamHours, type StreamHours } from '../../src/events/hours.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';

describe('the hours of the stream', () => {
  let open: EngineDatabase;
  let hours: StreamHours;
  const unbounded = 2 ** 31 - 1;

  beforeAll(async () => {
    open = await openEngine(engines.at(-1) ?? 'embedded');
    await open.database.sql`
      insert into event_hours (hour, first_position, began_at)
      values (100, 1, '2026-01-01T00:00Z'), (101, 11, '2026-01-01T01:00Z'), (110, 11, '2026-01-01T10:00Z'), (111, 21, '2026-01-01T11:00Z')`;
    hours = createStreamHours(open.database);
  });
  afterAll(() => open.close());

  it('leave nothing out before they are known', () => {
    expect(hours.holding(5, 15)).toEqual({ from: 0, until: unbounded });
    expect(hours.beganAtMs(100)).toBeNull();
  });

  it.each([
    [null, null, 0, unbounded],
    [0, null, 100, unbounded],
    [9, null, 100, unbounded],
    // Position 11 is the next: of hour 110, and none is of 101.
    [10, null, 110, unbounded],
    [19, null, 110, unbounded],
    [20, null, 111, unbounded],
    [1_000, null, 111, unbounded],
    [null, 1, 0, 100],
    [null, 2, 0, 101],
    [null, 11, 0, 101],
    [null, 12, 0, 111],
    [null, 21, 0, 111],
    // Beyond the newest that is known anything may have begun.
    [null, 22, 0, unbounded],
    [4, 15, 100, 111],
  ])('after %s and before %s are from %s and until %s', async (after, before, from, until) => {
    await hours.learn();
    expect(hours.holding(after, before)).toEqual({ from, until });
  });

  it('tell when the first hour began that is not before one', async () => {
    await hours.learn();
    expect(hours.beganAtMs(102)).toBe(Date.parse('2026-01-01T10:00Z'));
    expect(hours.beganAtMs(112)).toBeNull();
  });

  it('are forgotten where nothing is left of them', async () => {
    await hours.learn();
    await hours.forgetBefore(101);
    expect(hours.holding(0, 2)).toEqual({ from: 0, until: 101 });
    expect(await open.database.sql`select hour from event_hours order by hour`).toMatchObject([
      { hour: 101 },
      { hour: 110 },
      { hour: 111 },
    ]);
  });
});
