import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { type Allowances, createAllowances } from '../../src/agent-gateway/allowance.ts';
import { SteppedClock } from './clocks.ts';

const limits = { framesPerSecond: 10, bytesPerSecond: 1_000 };
let clock: SteppedClock;
let allowances: Allowances;
beforeEach(() => {
  clock = new SteppedClock();
  allowances = createAllowances(clock, limits);
});

describe('an allowance', () => {
  it.each(['tookFrames', 'tookBytes'] as const)('may be saved up for five seconds: %s', (took) => {
    const perSecond = took === 'tookFrames' ? 10 : 1_000;
    const allowance = allowances.of('a');
    allowance[took](5 * perSecond);
    expect(allowance.overdrawnMs).toBe(0);
    allowance[took](perSecond);
    expect(allowance.overdrawnMs).toBe(1_000);
    clock.advance(600);
    expect(allowance.overdrawnMs).toBe(400);
    clock.advance(3_600_000);
    allowance[took](6 * perSecond);
    expect(allowance.overdrawnMs).toBe(1_000);
  });

  it('is overdrawn by ten seconds at the most', () => {
    const allowance = allowances.of('a');
    allowance.tookFrames(1_000_000);
    expect(allowance.overdrawnMs).toBe(10_000);
  });

  it('is one for all links of a name, and another for another', () => {
    allowances.of('a').tookFrames(60);
    expect(allowances.of('a').overdrawnMs).toBe(1_000);
    expect(allowances.of('b').overdrawnMs).toBe(0);
  });

  it('is not forgotten while anything of it is spent, however many come', () => {
    allowances.of('a').tookFrames(60);
    for (let name = 0; name < 5_000; name++) allowances.of(`${name}`);
    expect(allowances.of('a').overdrawnMs).toBe(1_000);
  });

  it('does not grow where the clock is set back', () => {
    allowances.of('a').tookFrames(60);
    clock.advance(-3_600_000);
    expect(allowances.of('a').overdrawnMs).toBe(1_000);
    clock.advance(1_000);
    expect(allowances.of('a').overdrawnMs).toBe(0);
  });

  it('lets through what comes in the long run, five seconds and one chunk more at the most', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(20), fc.nat(500)), { maxLength: 200 }), (chunks) => {
        const allowance = allowances.of(`${Math.random()}`);
        let taken = 0;
        let passedMs = 0;
        for (const [frames, afterMs] of chunks) {
          clock.advance(afterMs);
          passedMs += afterMs;
          if (allowance.overdrawnMs > 0) continue;
          allowance.tookFrames(frames);
          taken += frames;
        }
        expect(taken).toBeLessThanOrEqual(50 + (10 * passedMs) / 1_000 + 20);
      }),
    );
  });
});
