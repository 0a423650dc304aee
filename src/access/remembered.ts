import type { Clock } from '../clock.ts';
import type { Consumer } from './consumer.ts';

/** Consumers by the hash of what they showed, for seconds: not every request asks the database or checks a signature. */
export interface Remembered {
  /**
   * Who showed this, as found now or lately by `find`, which is asked once for all who wait for the same answer. Gives a
   * promise only where it has to be asked.
   */
  get(hash: string, find: () => Promise<Consumer | null>): Consumer | null | Promise<Consumer | null>;
  /** Forgets whoever has one of these ids. */
  forget(ids: readonly string[]): void;
  /** Forgets everybody: word of anyone may have been missed. */
  forgetAll(): void;
}

interface Finding {
  readonly consumer: Consumer | null;
  readonly untilMs: number;
}

/** So long a revoked key may still let someone in where no word of it came. */
const rememberMs = 5_000;
const maxKnown = 10_000;
/** Fewer, and apart: whoever guesses must not push out those who are known. */
const maxUnknown = 1_000;

/** `wall` tells what time it is, by which credentials expire. */
export function createRemembered(clock: Pick<Clock, 'now'>, wall: Pick<Clock, 'now'>): Remembered {
  const known = new Map<string, Finding>();
  const unknown = new Map<string, Finding>();
  const asked = new Map<string, Promise<Consumer | null>>();

  function recall(findings: Map<string, Finding>, hash: string): Finding | null {
    const finding = findings.get(hash);
    if (!finding) return null;
    const { consumer, untilMs } = finding;
    const isOver = untilMs <= clock.now() || (consumer !== null && hasExpired(consumer, wall));
    if (isOver) findings.delete(hash);
    return isOver ? null : finding;
  }

  function keep(hash: string, consumer: Consumer | null): void {
    const [findings, most] = consumer ? [known, maxKnown] : [unknown, maxUnknown];
    findings.delete(hash);
    const [oldest] = findings.keys();
    if (findings.size >= most && oldest !== undefined) findings.delete(oldest);
    findings.set(hash, { consumer, untilMs: clock.now() + rememberMs });
  }

  async function ask(hash: string, find: () => Promise<Consumer | null>): Promise<Consumer | null> {
    const asking = find();
    asked.set(hash, asking);
    try {
      const consumer = await asking;
      // Forgotten while it was found: what was found may be out of date.
      if (asked.get(hash) === asking) keep(hash, consumer);
      return consumer;
    } finally {
      if (asked.get(hash) === asking) asked.delete(hash);
    }
  }

  return {
    get(hash, find) {
      const finding = recall(known, hash) ?? recall(unknown, hash);
      return finding ? finding.consumer : (asked.get(hash) ?? ask(hash, find));
    },
    forget(ids) {
      asked.clear();
      for (const [hash, { consumer }] of known) if (consumer && ids.includes(consumer.id)) known.delete(hash);
    },
    forgetAll() {
      for (const findings of [asked, known, unknown]) findings.clear();
    },
  };
}

export function hasExpired({ expiresAt }: Consumer, wall: Pick<Clock, 'now'>): boolean {
  return expiresAt !== null && expiresAt.getTime() <= wall.now();
}
