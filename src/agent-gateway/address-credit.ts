import type { Clock } from '../clock.ts';
import type { ErrorCode } from '../errors.ts';

/** How a handshake ended: `unserved` where that was not the peer's doing, which is held against nobody. */
export type HandshakeEnd = 'authenticated' | 'failed' | 'unserved';

const ours: ReadonlySet<ErrorCode> = new Set(['UNAVAILABLE', 'INTERNAL_SERVER_ERROR']);

/** `code`: why the handshake was refused, or null. */
export function endOfHandshake(code: ErrorCode | null): HandshakeEnd {
  if (code === null) return 'authenticated';
  return ours.has(code) ? 'unserved' : 'failed';
}

export interface CreditLimits {
  /** What an address begins with, and what comes back to it with time. */
  readonly startCredit: number;
  readonly maxCredit: number;
  readonly creditPerSecond: number;
  /** Handshakes at once of an address that is not known. */
  readonly placesOfStranger: number;
}

/**
 * What an address may do. A handshake takes one credit, which success gives back with one more, and failure does not give
 * back. So one number bounds the handshakes of an address, its silent sockets and its guesses, and ten thousand agents
 * behind one address soon have all that they need.
 */
export interface AddressCredit {
  readonly address: string;
  /** Handshakes under way. */
  readonly inside: number;
  /** Whether it may begin one more. */
  readonly hasCredit: boolean;
  /** Whether it has lost little of what it began with: a known one a half at most, a stranger an eighth. */
  readonly standsWell: boolean;
  /** Whether somebody authenticated from here within the last hour. */
  readonly isKnown: boolean;
  began(): void;
  ended(end: HandshakeEnd): void;
}

/** The credit of every address that was heard of lately. */
export interface AddressCredits {
  of(address: string): AddressCredit;
  /** Addresses that have used theirs up by failing. */
  readonly exhausted: number;
}

const rememberedMs = 3_600_000;
/** Of either sort: strangers must not crowd out those that are known. */
const maxAddresses = 32_768;

export function createAddressCredits(clock: Clock, limits: CreditLimits): AddressCredits {
  const known = new Map<string, AddressCredit>();
  const strangers = new Map<string, AddressCredit>();

  /** Those used last are kept. */
  function keep(credit: AddressCredit): void {
    known.delete(credit.address);
    strangers.delete(credit.address);
    const among = credit.isKnown ? known : strangers;
    among.set(credit.address, credit);
    if (among.size <= maxAddresses) return;
    for (const oldest of among.values()) {
      if (oldest.inside > 0 || oldest === credit) continue;
      among.delete(oldest.address);
      return;
    }
  }

  function create(address: string): AddressCredit {
    const { startCredit, maxCredit, creditPerSecond } = limits;
    /** With what its handshakes under way have taken. */
    let balance = startCredit;
    let reckonedAtMs = clock.now();
    let inside = 0;
    let provenAtMs = Number.NEGATIVE_INFINITY;

    function reckon(): number {
      const nowMs = clock.now();
      const gained = (Math.max(0, nowMs - reckonedAtMs) * creditPerSecond) / 1_000;
      if (balance < startCredit) balance = Math.min(startCredit, balance + gained);
      reckonedAtMs = nowMs;
      return balance;
    }

    const credit: AddressCredit = {
      address,
      get inside() {
        return inside;
      },
      get hasCredit() {
        return reckon() - inside >= 1 && (credit.isKnown || inside < limits.placesOfStranger);
      },
      get standsWell() {
        return reckon() >= startCredit * (credit.isKnown ? 1 / 2 : 7 / 8);
      },
      get isKnown() {
        return clock.now() - provenAtMs < rememberedMs;
      },
      began() {
        inside++;
      },
      ended(end) {
        const before = reckon();
        inside--;
        if (end === 'failed') balance = Math.max(0, before - 1);
        if (end !== 'authenticated') return;
        balance = Math.min(maxCredit, before + 1);
        provenAtMs = clock.now();
        keep(credit);
      },
    };
    return credit;
  }

  return {
    of(address) {
      const credit = known.get(address) ?? strangers.get(address) ?? create(address);
      keep(credit);
      return credit;
    },
    get exhausted() {
      const all = [...known.values(), ...strangers.values()];
      return all.filter((credit) => !credit.standsWell && !credit.hasCredit).length;
    },
  };
}
