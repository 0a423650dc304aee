import { z } from 'zod';
import type { Clock } from '../clock.ts';
import type { Bus } from './bus.ts';
import { isSharedTopic, parseHint, type SharedTopic } from './topic-codecs.ts';

/** What comes from the other gateways: parsed, and watched for what is missing. */
export interface Inbox {
  /** Takes a text as it comes, this gateway's own ones among them. */
  take(text: string): void;
  /** Something may have been lost: whoever lives by hints is told to look. */
  miss(): void;
  /** A text of bodies, of another gateway. */
  takeBodies(text: string): void;
  /** Who has been heard lately. */
  readonly peers: readonly string[];
  /** Whether one of them has said that it takes bodies. */
  readonly hasTakers: boolean;
  stop(): void;
}

/** One text: hints by topic, those of one topic in their order, how many texts its sender has sent, and whether it takes bodies. */
const envelope = z.object({
  origin: z.string(),
  number: z.number(),
  takesBodies: z.boolean().optional(),
  hints: z.record(z.string(), z.array(z.unknown())),
});

const peerMs = 15_000;
/** However often something is missed, a look at everything is asked for no more often. */
const missIntervalMs = 1_000;

export function createInbox(deps: {
  /** Its own texts are passed over: its listeners have heard them. */
  readonly self: string;
  readonly local: Pick<Bus, 'publish'>;
  readonly clock: Clock;
  readonly monotonicMs: () => number;
  readonly logError: (error: unknown, context: string) => void;
}): Inbox {
  const { self, local, clock, monotonicMs } = deps;
  const heard = new Map<string, { number: number; atMs: number; takesBodies: boolean }>();
  const strange = new Set<string>();
  let cancelMiss: (() => void) | null = null;
  let isMissedAgain = false;

  function take(text: string): void {
    const parsed = envelope.safeParse(jsonOrNull(text)).data;
    if (!parsed) tellOnce('a text on the bus is not one of ours');
    if (!parsed || parsed.origin === self) return;
    const { origin, number, takesBodies = false, hints } = parsed;
    const isNext = number === (heard.get(origin)?.number ?? 0) + 1;
    heard.set(origin, { number, atMs: monotonicMs(), takesBodies });
    // Topics of a newer version are about what this one does not have.
    for (const [topic, values] of Object.entries(hints)) if (isSharedTopic(topic)) pass(topic, values);
    if (!isNext) miss();
  }

  function pass<T extends SharedTopic>(topic: T, values: readonly unknown[]): void {
    for (const value of values) {
      const hint = parseHint(topic, value);
      if (hint !== null) local.publish(topic, hint);
      else {
        tellOnce(`hints of the topic ${topic} are passed over that this version does not know`);
        miss();
      }
    }
  }

  function tellOnce(what: string): void {
    if (!strange.has(what)) deps.logError(new Error(what), 'the bus brought what cannot be read');
    strange.add(what);
  }

  function miss(): void {
    isMissedAgain = cancelMiss !== null;
    if (isMissedAgain) return;
    local.publish('missed', {});
    cancelMiss = clock.after(missIntervalMs, () => {
      cancelMiss = null;
      if (isMissedAgain) miss();
    });
  }

  function forgetSilent(): void {
    const since = monotonicMs() - peerMs;
    for (const [origin, { atMs }] of heard) if (atMs < since) heard.delete(origin);
  }

  return {
    take,
    miss,
    takeBodies: (text) => local.publish('bodies', { text }),
    get peers() {
      forgetSilent();
      return [...heard.keys()];
    },
    get hasTakers() {
      forgetSilent();
      for (const { takesBodies } of heard.values()) if (takesBodies) return true;
      return false;
    },
    stop() {
      cancelMiss?.();
    },
  };
}

function jsonOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
