import type { Bus } from '../bus/bus.ts';
import { type Clock, repeat } from '../clock.ts';
import { type BroadcastTransitions, batchOf } from './broadcast-transitions.ts';
import type { Message } from './message.ts';
import type { Retention } from './retention.ts';

/**
 * What has to be done for messages although nobody asks: pacing, ending and counting broadcasts, and clearing away. Every
 * gateway does it, in turns that the database tells, so that one that dies is not missed.
 */
export interface Upkeep {
  start(): void;
  /** Looks at once for what there is to do for broadcasts. */
  hurry(): void;
  /** Resolves when the statement under way has ended. */
  stop(): Promise<void>;
}

const broadcastIntervalMs = 500;
const retentionIntervalMs = 60_000;
const retentionPauseMs = 100;
const maxCancelledAtOnce = 1_000;
/** Results below which no broadcast is aborted: a few failures say little. */
const minResults = 10;
/** Beyond so many agents, each gateway looks for its own. */
const maxHintedAgents = 100;

export function createUpkeep(deps: {
  readonly transitions: BroadcastTransitions;
  readonly retention: Retention;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly announce: (changed: readonly Message[]) => void;
  readonly logError: (error: unknown, context: string) => void;
}): Upkeep {
  const { transitions, retention, bus, clock, announce } = deps;
  const releases: (() => void)[] = [];
  let isStopped = false;
  let isHurried = false;
  let broadcasting: Promise<void> | null = null;
  let clearing: Promise<void> = Promise.resolve();

  async function tendBroadcasts(): Promise<void> {
    const released = await transitions.release();
    if (released.length > maxHintedAgents) bus.publish('queuedForMany', {});
    else if (released.length > 0) bus.publish('queued', { agentUids: released });
    await transitions.abort(minResults);
    for (const { id, payloadBytes } of await transitions.ending()) await cancelSome(id, payloadBytes);
    await transitions.foldCounts();
    await transitions.finish();
  }

  async function cancelSome(broadcastId: string, payloadBytes: number): Promise<void> {
    const limit = batchOf(payloadBytes, maxCancelledAtOnce);
    const cancelled = await transitions.cancelMessages(broadcastId, limit);
    if (cancelled.length > 0) announce(cancelled);
    // The rest goes at once, too, but paced broadcasts have their turn in between.
    if (cancelled.length === limit) isHurried = true;
  }

  /** One at a time; who hurries it meanwhile has it begin once more, since it may have looked too early. */
  function tend(): void {
    if (isStopped) return;
    if (broadcasting) {
      isHurried = true;
      return;
    }
    isHurried = false;
    broadcasting = tendBroadcasts()
      .catch((error) => deps.logError(error, 'broadcasts could not be looked after'))
      .finally(() => {
        broadcasting = null;
        if (isHurried) tend();
      });
  }

  async function clearAway(): Promise<void> {
    while (!isStopped && (await retention.clearAway()))
      await new Promise<void>((resolve) => clock.after(retentionPauseMs, resolve));
  }

  return {
    start() {
      releases.push(
        clock.every(broadcastIntervalMs, () => {
          if (!broadcasting) tend();
        }),
        repeat(
          clock,
          retentionIntervalMs,
          () => {
            clearing = clearAway();
            return clearing;
          },
          (error) => deps.logError(error, 'old messages could not be cleared away'),
        ),
      );
    },
    hurry: tend,
    async stop() {
      isStopped = true;
      for (const release of releases.splice(0)) release();
      await Promise.allSettled([broadcasting, clearing]);
    },
  };
}
