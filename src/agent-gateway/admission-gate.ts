import type { Clock } from '../clock.ts';
import { type AddressCredit, type CreditLimits, createAddressCredits, type HandshakeEnd } from './address-credit.ts';

/** Gives a place back, once. */
export type LeavePlace = (end: HandshakeEnd) => void;

/** One who waits for a place. One of the two is called, once, unless it is withdrawn before; maybe at once. */
export interface Waiter {
  admit(leave: LeavePlace): void;
  refuse(): void;
}

/**
 * Who may begin a handshake, and when. A place is taken from the upgrade until its authentication is answered, so the pace is
 * that of the answers and no rate needs to be guessed. Knows no sockets, and of addresses that they differ.
 */
export interface AdmissionGate {
  /** A place now, or null. */
  enter(address: string): LeavePlace | null;
  /**
   * Waits for one: in the order of coming within an address, one address after the other. `waitedMs`: how long already.
   * Returns what withdraws.
   */
  wait(address: string, waiter: Waiter, waitedMs?: number): () => void;
  /**
   * Whether somebody from there, who may have been held, is late for others' sake: agents that others of the same address wait
   * behind, some of whom have authenticated. Where nobody has, it is a flood.
   */
  isStorm(address: string, wasHeld: boolean): boolean;
  readonly held: number;
  /** Handshakes under way. */
  readonly inside: number;
  /** Addresses that have used up their credit by failing. */
  readonly exhausted: number;
  /** Lets everyone in who waits, and holds nobody any more. */
  open(): void;
}

export interface AdmissionLimits extends CreditLimits {
  /** Handshakes at once: enough that none waits for a round trip, few enough that each is answered soon. */
  readonly places: number;
  /** So many of them for addresses that are not known. */
  readonly strangerPlaces: number;
  /**
   * Nobody waits longer. Those who have waited for `paceFromMs` are let in beyond `places` where the address stands well, as many
   * at each look as it takes to be through with all of them by then: in one go they would be too much for those who were let in.
   */
  readonly holdMs: number;
  readonly paceFromMs: number;
  readonly maxInside: number;
  readonly maxInsideOfAddress: number;
  readonly maxHeld: number;
  readonly maxHeldOfAddress: number;
  /** Of an address that does not stand well. */
  readonly maxHeldOfSuspect: number;
}

/** docs/AGENTS.md, "Admission", has the arithmetic. */
export const defaultAdmissionLimits: AdmissionLimits = {
  startCredit: 256,
  maxCredit: 512,
  creditPerSecond: 16,
  placesOfStranger: 128,
  places: 512,
  strangerPlaces: 256,
  holdMs: 7_900,
  // By then it is known which of those inside say nothing.
  paceFromMs: 5_500,
  maxInside: 16_384,
  maxInsideOfAddress: 10_240,
  maxHeld: 20_480,
  maxHeldOfAddress: 10_240,
  maxHeldOfSuspect: 256,
};

/** How often those who wait are looked at. */
export const lookIntervalMs = 50;

interface Held {
  readonly queue: Queue;
  readonly waiter: Waiter;
  readonly sinceMs: number;
}

/** Those who wait behind one address. */
interface Queue {
  readonly credit: AddressCredit;
  readonly waiting: Set<Held>;
}

export function createAdmissionGate(clock: Clock, limits: AdmissionLimits = defaultAdmissionLimits): AdmissionGate {
  const credits = createAddressCredits(clock, limits);
  const queues = new Map<AddressCredit, Queue>();
  /** Queues that have credit, in the order of their turns. */
  const turns = { known: new Set<Queue>(), strangers: new Set<Queue>() };
  /** Queues that wait for credit. */
  const parked = new Set<Queue>();
  const held = new Set<Held>();
  let inside = 0;
  let strangersInside = 0;
  let strangersAreNext = false;
  let isServing = false;
  let isOpen = false;
  /** At the last look, and how many were let in since then. */
  let lookedAtMs = 0;
  let letInSinceLook = 0;
  let stopLooking: (() => void) | null = null;

  function takePlace(credit: AddressCredit): LeavePlace {
    const isStranger = !credit.isKnown;
    inside++;
    if (isStranger) strangersInside++;
    credit.began();
    let hasLeft = false;
    return (end) => {
      if (hasLeft) return;
      hasLeft = true;
      inside--;
      if (isStranger) strangersInside--;
      credit.ended(end);
      const queue = queues.get(credit);
      if (queue) line(queue);
      serve();
    };
  }

  /** Puts a queue where it belongs; where it is there already, it keeps its turn. */
  function line(queue: Queue): void {
    const { credit, waiting } = queue;
    const turn = credit.isKnown ? turns.known : turns.strangers;
    const place = waiting.size === 0 ? null : credit.hasCredit ? turn : parked;
    for (const other of [turns.known, turns.strangers, parked]) if (other !== place) other.delete(queue);
    if (place) place.add(queue);
    else queues.delete(credit);
  }

  /** Known addresses and strangers alternate. */
  function nextQueue(): Queue | null {
    const [acquaintance] = turns.known;
    const [stranger] = strangersInside < limits.strangerPlaces ? turns.strangers : [];
    const next = strangersAreNext ? (stranger ?? acquaintance) : (acquaintance ?? stranger);
    strangersAreNext = next === acquaintance;
    return next ?? null;
  }

  function serve(): void {
    // Whoever is let in may leave again at once.
    if (isServing) return;
    isServing = true;
    while (inside < limits.places) {
      const [first] = nextQueue()?.waiting ?? [];
      if (!first) break;
      letIn(first);
    }
    isServing = false;
  }

  function letIn(one: Held): void {
    const { queue } = one;
    letInSinceLook++;
    const leave = takePlace(queue.credit);
    // The turn is over.
    for (const turn of [turns.known, turns.strangers]) turn.delete(queue);
    remove(one);
    one.waiter.admit(leave);
  }

  function remove(one: Held): void {
    held.delete(one);
    one.queue.waiting.delete(one);
    line(one.queue);
    if (held.size > 0) return;
    stopLooking?.();
    stopLooking = null;
  }

  function look(): void {
    for (const queue of [...parked]) line(queue);
    serve();
    const nowMs = clock.now();
    const longest = [...held].filter(({ sinceMs }) => nowMs - sinceMs >= limits.paceFromMs);
    longest.sort((one, other) => one.sinceMs - other.sinceMs);
    let due = dueOf(longest, nowMs) - letInSinceLook;
    for (const one of longest) {
      const isOverdue = nowMs - one.sinceMs >= limits.holdMs;
      if (due <= 0 && !isOverdue) break;
      // Whoever was let in may have left at once, and given a place to one of these.
      if (!held.has(one)) continue;
      if (mayExceed(one.queue.credit)) {
        letIn(one);
        due--;
      } else if (isOverdue) {
        remove(one);
        one.waiter.refuse();
      }
    }
    lookedAtMs = nowMs;
    letInSinceLook = 0;
  }

  /** How many of them must have been let in since the last look, however late this one comes, to be through in time. */
  function dueOf(longest: readonly Held[], nowMs: number): number {
    const [oldest] = longest;
    if (!oldest) return 0;
    const leftMs = Math.max(0, oldest.sinceMs + limits.holdMs - nowMs);
    const passedMs = Math.max(1, nowMs - lookedAtMs);
    return Math.ceil((longest.length * passedMs) / (leftMs + passedMs));
  }

  function mayExceed(credit: AddressCredit): boolean {
    return credit.standsWell && inside < limits.maxInside && credit.inside < limits.maxInsideOfAddress;
  }

  function hold(credit: AddressCredit, waiter: Waiter, waitedMs: number): Held | null {
    const queue = queues.get(credit) ?? { credit, waiting: new Set() };
    const most = credit.standsWell ? limits.maxHeldOfAddress : limits.maxHeldOfSuspect;
    if (held.size >= limits.maxHeld || queue.waiting.size >= most) return null;
    const one: Held = { queue, waiter, sinceMs: clock.now() - waitedMs };
    queues.set(credit, queue);
    queue.waiting.add(one);
    held.add(one);
    line(queue);
    return one;
  }

  return {
    enter(address) {
      const credit = credits.of(address);
      if (queues.has(credit) || !credit.hasCredit || inside >= limits.places) return null;
      return credit.isKnown || strangersInside < limits.strangerPlaces ? takePlace(credit) : null;
    },
    wait(address, waiter, waitedMs = 0) {
      const credit = credits.of(address);
      const one = isOpen ? null : hold(credit, waiter, waitedMs);
      if (one) {
        serve();
        if (held.size > 0 && !stopLooking) {
          lookedAtMs = clock.now();
          letInSinceLook = 0;
          stopLooking = clock.every(lookIntervalMs, look);
        }
        return () => {
          if (held.has(one)) remove(one);
        };
      }
      if (isOpen) waiter.admit(takePlace(credit));
      else waiter.refuse();
      return () => {};
    },
    isStorm(address, wasHeld) {
      const credit = credits.of(address);
      return credit.isKnown && (wasHeld || queues.has(credit));
    },
    get held() {
      return held.size;
    },
    get inside() {
      return inside;
    },
    get exhausted() {
      return credits.exhausted;
    },
    open() {
      isOpen = true;
      for (const one of held) letIn(one);
    },
  };
}
