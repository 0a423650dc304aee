import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import type { HandshakeEnd } from '../../src/agent-gateway/address-credit.ts';
import {
  type AdmissionGate,
  type AdmissionLimits,
  createAdmissionGate,
  defaultAdmissionLimits,
  type LeavePlace,
  lookIntervalMs,
  type Waiter,
} from '../../src/agent-gateway/admission-gate.ts';
import { SteppedClock } from './clocks.ts';

const limits: AdmissionLimits = {
  ...{ startCredit: 16, maxCredit: 32, creditPerSecond: 2, placesOfStranger: 4, places: 8, strangerPlaces: 6 },
  ...{ holdMs: 7_000, paceFromMs: 5_000, maxInside: 20, maxInsideOfAddress: 12 },
  ...{ maxHeld: 40, maxHeldOfAddress: 30, maxHeldOfSuspect: 2 },
};

/** One who came, and what became of it. */
interface Comer {
  readonly address: string;
  readonly cameAtMs: number;
  state: 'held' | 'inside' | 'refused' | 'gone';
  heldMs: number;
  leave: LeavePlace;
  withdraw: () => void;
}

let clock: SteppedClock;
let gate: AdmissionGate;
/** In the order in which they were let in. */
let admitted: Comer[];

function start(own: Partial<AdmissionLimits> = {}): void {
  clock = new SteppedClock(0);
  gate = createAdmissionGate(clock, { ...limits, ...own });
  admitted = [];
}
beforeEach(() => start());

function come(address: string, waitedMs = 0): Comer {
  const comer: Comer = {
    ...{ address, cameAtMs: clock.now(), state: 'held', heldMs: 0 },
    leave: () => {
      throw new Error('is not inside');
    },
    withdraw: () => {},
  };
  const decide = (state: Comer['state']) => {
    if (comer.state !== 'held') throw new Error(`was ${comer.state} already`);
    comer.state = state;
    comer.heldMs = clock.now() - comer.cameAtMs;
  };
  const waiter: Waiter = {
    admit(leave) {
      decide('inside');
      comer.leave = leave;
      admitted.push(comer);
    },
    refuse: () => decide('refused'),
  };
  comer.withdraw = gate.wait(address, waiter, waitedMs);
  return comer;
}

function comeAll(address: string, count: number): Comer[] {
  return Array.from({ length: count }, () => come(address));
}

function leave(comer: Comer, end: HandshakeEnd = 'authenticated'): void {
  comer.state = 'gone';
  comer.leave(end);
}

/** Has somebody authenticate from there. */
function makeKnown(address: string): void {
  leave(come(address));
  admitted = [];
}

function statesOf(comers: readonly Comer[]): string[] {
  return comers.map(({ state }) => state);
}

describe('a place', () => {
  it('is had at once while there are any, without a timer', () => {
    expect(come('a').state).toBe('inside');
    expect([gate.inside, gate.held]).toEqual([1, 0]);
  });

  it('goes to the next one as soon as one is given back', () => {
    makeKnown('a');
    const comers = comeAll('a', 9);
    expect(statesOf(comers)).toEqual([...Array(8).fill('inside'), 'held']);
    for (const first of comers.slice(0, 1)) leave(first);
    expect(comers.at(-1)?.state).toBe('inside');
  });

  it('is given back once, however often that is said', () => {
    const comer = come('a');
    comer.leave('authenticated');
    comer.leave('authenticated');
    expect(gate.inside).toBe(0);
  });

  it('is not for whoever has gone meanwhile', () => {
    const comers = comeAll('a', 6);
    comers[4]?.withdraw();
    for (const first of comers.slice(0, 1)) leave(first);
    expect(statesOf(comers)).toEqual(['gone', 'inside', 'inside', 'inside', 'held', 'inside']);
    expect(gate.held).toBe(0);
  });

  it('is never had by v2 while somebody waits behind the same address, or all are taken', () => {
    makeKnown('a');
    makeKnown('b');
    comeAll('a', 7);
    const last = gate.enter('b');
    expect(last).not.toBeNull();
    expect(gate.enter('b')).toBeNull();
    last?.('authenticated');
    comeAll('c', 2);
    expect(gate.enter('c')).toBeNull();
  });
});

describe('places are shared', () => {
  it('one address after the other, in the order of coming within each', () => {
    for (const address of ['a', 'b', 'c']) makeKnown(address);
    const taken = comeAll('a', 8);
    comeAll('a', 4);
    comeAll('b', 2);
    comeAll('c', 1);
    admitted = [];
    for (const comer of taken) leave(comer);
    expect(admitted.map(({ address }) => address)).toEqual(['a', 'b', 'c', 'a', 'b', 'a', 'a']);
  });

  it('with some that strangers cannot take, and some for each stranger alone', () => {
    makeKnown('known');
    comeAll('x', 10);
    comeAll('y', 10);
    expect(admitted.map(({ address }) => address)).toEqual(['x', 'x', 'x', 'x', 'y', 'y']);
    expect(come('known').state).toBe('inside');
  });

  it('with strangers too, while a known address has no end of agents', () => {
    makeKnown('known');
    const taken = comeAll('known', 8);
    comeAll('known', 10);
    const stranger = come('x');
    for (const comer of taken.slice(0, 2)) leave(comer);
    expect(stranger.state).toBe('inside');
  });

  it('fairly whatever comes: nobody is passed by more than twice as often as there are addresses', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 8, maxLength: 60 }), (addresses) => {
        start({ maxHeld: 100, maxHeldOfAddress: 100, startCredit: 1_000, maxCredit: 1_000 });
        for (const address of [0, 1, 2, 3, 4]) makeKnown(`${address}`);
        const comers = addresses.map((address) => come(`${address}`));
        const inside = [...admitted];
        for (const one of inside) leave(one);
        while (gate.inside > 0) for (const one of admitted.filter(({ state }) => state === 'inside')) leave(one);
        for (const [index, comer] of comers.entries()) {
          const before = comers.slice(0, index).filter(({ address }) => address === comer.address).length;
          expect(admitted.indexOf(comer)).toBeLessThanOrEqual(8 + (before + 1) * 10);
        }
        expect(admitted).toHaveLength(comers.length);
      }),
      { numRuns: 50 },
    );
  });
});

describe('an address that fails', () => {
  function fail(count: number): void {
    for (let failed = 0; failed < count; failed++) leave(come('bad'), 'failed');
  }

  it('waits when its credit is used up, for as long as it takes to come back', () => {
    fail(16);
    const guess = come('bad');
    expect(guess.state).toBe('held');
    expect(gate.exhausted).toBe(1);
    clock.advance(400);
    expect(guess.state).toBe('held');
    clock.advance(150);
    expect(guess.state).toBe('inside');
  });

  it('makes as many guesses as come back with time, and no more', () => {
    fail(16);
    let guesses = 0;
    for (let second = 0; second < 30; second++) {
      for (const comer of [come('bad')]) if (comer.state === 'inside') leave(comer, 'failed');
      clock.advance(1_000);
      for (const comer of admitted.filter(({ state }) => state === 'inside')) leave(comer, 'failed');
      guesses = admitted.length;
    }
    expect(guesses).toBeLessThanOrEqual(16 + 30 * limits.creditPerSecond);
  });

  it('costs no other address anything', () => {
    fail(16);
    comeAll('bad', 5);
    expect(come('good').state).toBe('inside');
  });

  it('is not one whose agents fail for a reason of ours', () => {
    for (let failed = 0; failed < 100; failed++) leave(come('a'), 'unserved');
    expect(come('a').state).toBe('inside');
  });

  it('has its credit back from those who succeed', () => {
    makeKnown('bad');
    for (let round = 0; round < 50; round++) {
      leave(come('bad'), 'failed');
      leave(come('bad'), 'authenticated');
    }
    expect(come('bad').state).toBe('inside');
  });

  it('holds no more than a few', () => {
    fail(16);
    expect(statesOf(comeAll('bad', 3))).toEqual(['held', 'held', 'refused']);
  });

  it('is forgiven with time', () => {
    fail(16);
    clock.advance(8_000);
    expect(gate.exhausted).toBe(0);
    expect(statesOf(comeAll('bad', 4))).toEqual(Array(4).fill('inside'));
  });
});

describe('whoever has waited for five seconds', () => {
  it('is let in beyond all places, evenly over the two that are left', () => {
    start({ maxInside: 100, maxInsideOfAddress: 100, maxHeld: 100, maxHeldOfAddress: 100 });
    makeKnown('a');
    const comers = comeAll('a', 8 + 40);
    const held = () => statesOf(comers).filter((state) => state === 'held').length;
    clock.advance(4_999);
    expect(held()).toBe(40);
    for (const left of [30, 20, 10]) {
      clock.advance(500);
      expect(Math.abs(held() - left)).toBeLessThanOrEqual(2);
    }
    clock.advance(501);
    expect(statesOf(comers)).toEqual(Array(48).fill('inside'));
  });

  it('is let in none the faster while answers alone bring all of them in by then', () => {
    start({ maxHeld: 200, maxHeldOfAddress: 200 });
    makeKnown('a');
    comeAll('a', 8 + 120);
    for (let ms = 0; ms < 7_000; ms += lookIntervalMs) {
      for (const one of admitted.filter(({ state }) => state === 'inside').slice(0, 1)) leave(one);
      clock.advance(lookIntervalMs);
      expect(gate.inside).toBeLessThanOrEqual(8);
    }
    expect(gate.held).toBe(0);
  });

  it('is let in by the seventh second, however late the gateway comes to look', () => {
    makeKnown('a');
    const comers = comeAll('a', 12);
    clock.stall(6_950);
    clock.advance(50);
    expect(statesOf(comers)).toEqual(Array(12).fill('inside'));
  });

  it('counts what it had waited before its request was read', () => {
    makeKnown('a');
    comeAll('a', 8);
    const [early, late] = [come('a', 0), come('a', 3_000)];
    clock.advance(4_000);
    expect(statesOf([early, late])).toEqual(['held', 'inside']);
    clock.advance(3_000);
    expect(early.state).toBe('inside');
  });

  it('is refused where that would be too many in all, or of its address', () => {
    makeKnown('a');
    makeKnown('b');
    const of = { a: comeAll('a', 14), b: comeAll('b', 10) };
    clock.advance(8_000);
    expect(statesOf(of.a).filter((state) => state === 'inside')).toHaveLength(12);
    expect(statesOf(of.b).filter((state) => state === 'inside')).toHaveLength(8);
    expect(statesOf([...of.a, ...of.b]).filter((state) => state === 'refused')).toHaveLength(4);
  });

  it('is refused where the address has failed by then', () => {
    const silent = comeAll('bad', 8);
    clock.advance(5_000);
    for (const one of silent.slice(0, 4)) leave(one, 'failed');
    clock.advance(3_000);
    expect(statesOf(silent.slice(4))).toEqual(Array(4).fill('inside'));
    for (const one of silent.slice(4)) leave(one, 'failed');
    comeAll('bad', 10);
    const last = come('bad');
    clock.advance(8_000);
    expect(last.state).toBe('refused');
  });
});

describe('those who wait', () => {
  it('are bounded for each address and in all', () => {
    makeKnown('a');
    makeKnown('b');
    const many = { a: comeAll('a', 8 + 31), b: comeAll('b', 11) };
    expect(statesOf(many.a).filter((state) => state === 'refused')).toHaveLength(1);
    expect(statesOf(many.b).filter((state) => state === 'refused')).toHaveLength(1);
    expect(gate.held).toBe(40);
  });

  it('are all let in where the gate opens, and whoever comes then', () => {
    const comers = comeAll('a', 20);
    gate.open();
    expect(statesOf([...comers, come('a')])).toEqual(Array(21).fill('inside'));
  });
});

it('whatever happens, each is decided once, in time and within the bounds', () => {
  const steps = fc.array(
    fc.record({
      do: fc.constantFrom('come' as const, 'come' as const, 'leave' as const, 'withdraw' as const, 'wait' as const),
      which: fc.nat(50),
      end: fc.constantFrom<HandshakeEnd>('authenticated', 'failed', 'unserved'),
      ms: fc.integer({ min: 1, max: 3_000 }),
    }),
    { maxLength: 150 },
  );
  fc.assert(
    fc.property(steps, (steps) => {
      start();
      const comers: Comer[] = [];
      const those = (state: Comer['state']) => comers.filter((comer) => comer.state === state);
      const does = {
        come: ({ which }: { which: number }) => void comers.push(come(`${which % 5}`)),
        wait: ({ ms }: { ms: number }) => clock.advance(ms),
        leave({ which, end }: { which: number; end: HandshakeEnd }) {
          const inside = those('inside');
          for (const one of inside.slice(which % (inside.length || 1)).slice(0, 1)) leave(one, end);
        },
        withdraw({ which }: { which: number }) {
          const held = those('held');
          for (const one of held.slice(which % (held.length || 1)).slice(0, 1)) {
            one.withdraw();
            one.state = 'gone';
          }
        },
      };
      for (const step of steps) {
        does[step.do](step);
        expect([gate.held, gate.inside]).toEqual([those('held').length, those('inside').length]);
        expect(gate.inside).toBeLessThanOrEqual(limits.maxInside);
        for (const { cameAtMs } of those('held'))
          expect(clock.now() - cameAtMs).toBeLessThan(limits.holdMs + lookIntervalMs);
      }
    }),
    { numRuns: 100 },
  );
});

describe('with the defaults, ten thousand agents that come at once', () => {
  /** Each millisecond so many are answered, if so many are inside. */
  function storm(agents: number, perSecond: number, addressOf: (index: number) => string) {
    clock = new SteppedClock(0);
    gate = createAdmissionGate(clock, defaultAdmissionLimits);
    admitted = [];
    const comers = Array.from({ length: agents }, (_, index) => come(addressOf(index)));
    const answeredMs: number[] = [];
    let answered = 0;
    const insideSinceMs = new Map<Comer, number>();
    for (let ms = 1; answered < agents && ms < 60_000; ms++) {
      clock.advance(1);
      for (const comer of admitted.slice(insideSinceMs.size)) insideSinceMs.set(comer, clock.now());
      const due = Math.min(admitted.length, Math.floor((ms * perSecond) / 1_000), answered + 20);
      for (; answered < due; answered++) {
        const comer = admitted[answered];
        if (!comer) break;
        answeredMs.push(clock.now() - (insideSinceMs.get(comer) ?? clock.now()));
        leave(comer);
      }
    }
    const longest = (those: readonly number[]) => those.reduce((most, each) => Math.max(most, each), 0);
    return {
      // An agent's dial has ten seconds, and its answer has ten more (agent-wire).
      stranded:
        comers.filter(({ state, heldMs }) => state === 'refused' || heldMs > 10_000).length +
        answeredMs.filter((ms) => ms > 10_000).length,
      refused: comers.filter(({ state }) => state === 'refused').length,
      longestHeldMs: longest(comers.map(({ heldMs }) => heldMs)),
      longestAnswerMs: longest(answeredMs),
    };
  }

  it('from one address, at 700 handshakes a second: none refused, none held for 8 s, none answered after 10 s', () => {
    const { refused, longestHeldMs, longestAnswerMs } = storm(10_000, 700, () => 'one');
    expect(refused).toBe(0);
    expect(longestHeldMs).toBeLessThan(8_000);
    expect(longestAnswerMs).toBeLessThan(10_000);
  });

  it('each from its own', () => {
    const { refused, longestHeldMs, longestAnswerMs } = storm(10_000, 700, (index) => `${index}`);
    expect(refused).toBe(0);
    expect(longestHeldMs).toBeLessThan(8_000);
    expect(longestAnswerMs).toBeLessThan(10_000);
  });

  it('five thousand lose nobody at 300 a second, which is less than a gateway manages on half a core', () => {
    expect(storm(5_000, 300, () => 'one').stranded).toBe(0);
  });

  it('are answered within a second each where the gateway manages 1,400 a second', () => {
    const { refused, longestAnswerMs } = storm(10_000, 1_400, () => 'one');
    expect(refused).toBe(0);
    expect(longestAnswerMs).toBeLessThan(1_000);
  });

  it('one more than is held is refused, as the last resort', () => {
    expect(storm(512 + 10_240, 700, () => 'one').refused).toBeGreaterThan(0);
  });
});
