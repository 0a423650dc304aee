import { beforeEach, describe, expect, it } from 'vitest';
import { createLinks, type Link, type Links } from '../../src/agent-gateway/links.ts';
import type { Bus } from '../../src/bus/bus.ts';
import { createMemoryBus } from '../../src/bus/memory-bus.ts';
import type { ErrorCode } from '../../src/errors.ts';
import type { LinkStanding } from '../../src/fleet/admission.ts';
import { SteppedClock } from './clocks.ts';

/** A link without a socket, that only notes what is asked of it. */
class NotingLink implements Link {
  readonly protocol = 'v1';
  readonly agentUid = 'agent';
  readonly publicKey: string;
  readonly standings: LinkStanding[] = [];
  isPaused = false;
  /** Its end waits for that of its registration. */
  isRegistering = false;
  timesAskedToEnd = 0;
  epoch: number | null;
  isSuperseded = false;
  ended: ErrorCode | number | null = null;

  constructor(epoch: number | null, publicKey = 'key') {
    this.epoch = epoch;
    this.publicKey = publicKey;
  }

  get ownsAgent(): boolean {
    return this.epoch !== null && !this.isSuperseded;
  }

  get isOpen(): boolean {
    return this.ended === null;
  }

  async update(standing: LinkStanding): Promise<void> {
    this.standings.push(standing);
  }

  supersede(): void {
    this.isSuperseded = true;
  }

  checkHealth(): void {}

  close(code: ErrorCode): void {
    this.ended ??= code;
  }

  end(closeCode: number): void {
    this.timesAskedToEnd++;
    if (!this.isRegistering) this.ended ??= closeCode;
  }
}

const standing: LinkStanding = {
  agentUid: 'agent',
  name: 'db-7',
  orgId: 'default-org',
  enrollment: 'approved',
  agentEpoch: 0,
  holdsKey: true,
  trusted: true,
  refusesV1: false,
  closedEventKinds: new Set(),
};

let clock: SteppedClock;
let bus: Bus;
/** What the next look at the fleet finds, once it is let go on. */
let looks: ((found: LinkStanding | null) => void)[] = [];
let links: Links;
let revoked: string[] = [];

beforeEach(() => {
  looks = [];
  revoked = [];
  clock = new SteppedClock();
  bus = createMemoryBus(() => {});
  links = createLinks(
    {
      clock,
      admissions: {
        standings: (asked) =>
          new Promise((resolve) => {
            looks.push((found) => resolve(asked.map(() => found)));
          }),
        closedLately: async () => revoked.map((agentUid) => ({ agentUid, throughEpoch: null })),
        onOwnershipLost: () => {},
      },
      report: {
        error(error) {
          throw error;
        },
      },
    },
    bus,
  );
  links.start();
});

const turn = () => new Promise((resolve) => setImmediate(resolve));

function added(...own: NotingLink[]): NotingLink[] {
  for (const link of own) links.add(link);
  return own;
}

const superseded = (...own: NotingLink[]) => own.map((link) => link.isSuperseded);

describe('of two links of an agent', () => {
  it('the one that owns it later stays, in whichever order they are added', () => {
    const [older, newer] = [new NotingLink(1), new NotingLink(2)];
    added(older, newer);
    expect(superseded(older, newer)).toEqual([true, false]);
    const [late, early] = [new NotingLink(3), new NotingLink(4)];
    added(early, late);
    expect(superseded(newer, late, early)).toEqual([true, true, false]);
  });

  it('one in quarantine gives way to a newer one with its key, and never an owner to it', () => {
    const owner = new NotingLink(1, 'trusted');
    const first = new NotingLink(null, 'stranger');
    const second = new NotingLink(null, 'stranger');
    const other = new NotingLink(null, 'another');
    added(owner, first, second, other);
    expect(superseded(owner, first, second, other)).toEqual([false, true, false, false]);
  });

  it('an owner lets those in quarantine be', () => {
    const stranger = new NotingLink(null, 'stranger');
    added(stranger, new NotingLink(1, 'trusted'));
    expect(superseded(stranger)).toEqual([false]);
  });
});

describe('looking how links stand', () => {
  const hint = () => bus.publish('agents', { agentUids: ['agent'] });

  it('is done one look at a time, so that an older answer cannot come last', async () => {
    const link = new NotingLink(1);
    added(link);
    hint();
    hint();
    await turn();
    expect(looks).toHaveLength(1);
    looks[0]?.({ ...standing, trusted: false });
    await turn();
    expect(looks).toHaveLength(2);
    looks[1]?.(standing);
    await turn();
    expect(link.standings.map(({ trusted }) => trusted)).toEqual([false, true]);
  });

  it('closes the links of an agent that is gone', async () => {
    const link = new NotingLink(1);
    added(link);
    hint();
    await turn();
    looks[0]?.(null);
    await turn();
    expect(link.ended).toBe('LINK_SUPERSEDED');
  });
});

describe('closing all', () => {
  it('ends what is there and what still comes, and resolves when nothing is left', async () => {
    const link = new NotingLink(1);
    added(link);
    let isDone = false;
    const closed = links.closeAll({ timeoutMs: 2_000 }).then(() => {
      isDone = true;
    });
    const late = new NotingLink(2);
    added(late);
    expect([link.ended, late.ended]).toEqual([1012, 1012]);
    links.remove(link);
    await Promise.resolve();
    expect(isDone).toBe(false);
    links.remove(late);
    await closed;
  });

  it('waits no longer than it may', async () => {
    added(new NotingLink(1));
    const closed = links.closeAll({ timeoutMs: 2_000 });
    clock.advance(2_000);
    await closed;
  });
});

describe('letting go', () => {
  const ended = (those: readonly NotingLink[]) => those.filter((link) => link.ended === 1012).length;

  it('ends what is there at once where nobody else takes it', async () => {
    const there = added(new NotingLink(1), new NotingLink(2));
    await links.letGo({ overMs: 0 });
    expect(ended(there)).toBe(2);
  });

  it('ends a few at a time where others take them, those that come meanwhile too', async () => {
    const there = Array.from({ length: 40 }, () => new NotingLink(1));
    for (const link of there) added(link);
    const gone = links.letGo({ overMs: 2_000 });
    expect(ended(there)).toBe(2);
    for (let step = 1; step < 10; step++) {
      clock.advance(100);
      await turn();
    }
    expect(ended(there)).toBe(20);
    const late = new NotingLink(2);
    added(late);
    for (let step = 10; step < 20; step++) {
      clock.advance(100);
      await turn();
    }
    expect(ended([...there, late])).toBe(41);
    clock.advance(100);
    await gone;
  });

  it('passes over a link that takes its time to end', async () => {
    const registering = Array.from({ length: 20 }, () => new NotingLink(1));
    for (const link of registering) link.isRegistering = true;
    const ready = new NotingLink(2);
    added(...registering, ready);
    const gone = links.letGo({ overMs: 2_000 });
    for (let step = 0; step < 20; step++) {
      clock.advance(100);
      await turn();
    }
    await gone;
    expect(registering.map(({ timesAskedToEnd }) => timesAskedToEnd)).toEqual(registering.map(() => 1));
    expect(ready.ended).toBe(1012);
  });
});
