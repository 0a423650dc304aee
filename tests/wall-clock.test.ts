import { beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../src/clock.ts';
import { createWallClock, type WallClock } from '../src/wall-clock.ts';

const hourMs = 3_600_000;
const startMs = 1_795_436_172_000;
/** What has passed since the process began. */
let passedMs: number;
/** What the machine's clock shows too much. */
let aheadMs: number;
let told: string[];
let wall: WallClock;

beforeEach(() => {
  passedMs = 20_000;
  aheadMs = 0;
  told = [];
  wall = createWallClock(systemClock, {
    machineMs: () => startMs + passedMs + aheadMs,
    monotonicMs: () => passedMs,
    onCorrected: (isCorrected, ahead) => told.push(`${isCorrected} ${ahead}`),
  });
});

/** A question that takes so long, at the middle of which the database looks at its clock, which is right. */
function compare(roundTripMs = 20): void {
  const askedAtMs = passedMs;
  passedMs += roundTripMs;
  wall.compare(startMs + askedAtMs + roundTripMs / 2, askedAtMs, passedMs);
}

const rightMs = () => startMs + passedMs;

describe('the wall clock', () => {
  it("is the machine's until there is another", () => {
    aheadMs = hourMs;
    expect(wall.now()).toBe(rightMs() + hourMs);
    expect(wall).toMatchObject({ aheadMs: null, isCorrected: false });
  });

  it.each([-5_000, -1, 0, 5_000])("is the machine's where it is %i ms from the database's", (offsetMs) => {
    aheadMs = offsetMs;
    compare();
    expect(wall.now()).toBe(rightMs() + offsetMs);
    expect(wall).toMatchObject({ aheadMs: offsetMs, isCorrected: false });
    expect(told).toEqual([]);
  });

  it.each([-hourMs, -5_011, 5_011, hourMs])("is the database's where the machine's is %i ms off", (offsetMs) => {
    aheadMs = offsetMs;
    compare();
    expect(wall.now()).toBe(rightMs());
    passedMs += 4_000;
    expect(wall.now()).toBe(rightMs());
    expect(wall).toMatchObject({ aheadMs: offsetMs, isCorrected: true });
    expect(told).toEqual([`true ${offsetMs}`]);
  });

  it('is right at once where somebody sets the clock of the machine, and back', () => {
    compare();
    aheadMs = -hourMs;
    expect(wall.now()).toBe(rightMs());
    expect(wall.machineMs()).toBe(rightMs() - hourMs);
    compare();
    compare();
    aheadMs = 0;
    expect(wall.isCorrected).toBe(false);
    compare();
    expect(told).toEqual([`true ${-hourMs}`, 'false 0']);
  });

  it('does not hold against the machine what an answer that took long cannot tell', () => {
    aheadMs = 8_000;
    compare(10_000);
    expect(wall.isCorrected).toBe(false);
    compare();
    expect(wall.isCorrected).toBe(true);
  });
});
