import { v2CloseCodes } from '../../agent-gateway/wire/v2-limits.ts';

/** When an agent that has lost its link, or did not get one, comes back (docs/PROTOCOL.md, "Close codes"). */

/** How a link, or an attempt at one, ended. */
export interface LinkEnd {
  /** The close code; 1006 where the connection broke or was never opened. */
  readonly code: number;
  readonly reason: string;
  readonly httpStatus: number | null;
  readonly retryAfterMs: number | null;
  /** Whether a session had been granted. */
  readonly wasOpen: boolean;
  /** Whether the other side, or the network, ended it. */
  readonly isByPeer: boolean;
}

export interface ReturnTimings {
  /** The first bound of the backoff; doubled with each attempt. */
  readonly backoffBaseMs: number;
  /** The last bound of the backoff. */
  readonly backoffMaxMs: number;
  /** The last bound for an agent that was revoked. */
  readonly revokedMaxMs: number;
  /** After a restart of the gateway agents come back within this. */
  readonly restartSpreadMs: number;
  /** How long to stay away where another host uses the same key. */
  readonly supersededMs: number;
}

export const defaultReturnTimings: ReturnTimings = {
  backoffBaseMs: 1_000,
  backoffMaxMs: 60_000,
  revokedMaxMs: 3_600_000,
  restartSpreadMs: 5_000,
  supersededMs: 60_000,
};

/** A session that ended sooner than this was not there to be used up: whoever follows at once would follow for ever. */
const shortSessionMs = 1_000;
/** Nobody is sent away for longer. */
const longestRetryAfterMs = 3_600_000;
const retryAfterPattern = /(?:^|[;,\s])retry-after=(\d{1,7})(?:$|[;,\s])/i;

/**
 * The delay before the next attempt, in milliseconds. `attempts` counts those since the last session; `sessionMs` is how long
 * that session lasted. `random` gives 0 up to, not including, 1.
 */
export function returnDelayMs(
  end: LinkEnd,
  context: { readonly attempts: number; readonly sessionMs: number; readonly random: () => number },
  timings: ReturnTimings,
): number {
  const { attempts, random } = context;
  const backoff = (maxMs: number): number => random() * Math.min(maxMs, timings.backoffBaseMs * 2 ** attempts);
  const toldMs = toldDelayMs(end);
  // As long as told, and up to as much again; with what backoff adds where it was told 0, time after time.
  if (toldMs !== null) return Math.max(toldMs * (1 + random()), backoff(timings.backoffMaxMs));
  switch (end.code) {
    case v2CloseCodes.restart:
      return attempts === 0 ? random() * timings.restartSpreadMs : backoff(timings.backoffMaxMs);
    case v2CloseCodes.revoked:
      return backoff(timings.revokedMaxMs);
    case v2CloseCodes.superseded:
      return timings.supersededMs * (1 + random());
    case v2CloseCodes.sessionEnded:
      return end.wasOpen && context.sessionMs >= shortSessionMs ? 0 : backoff(timings.backoffMaxMs);
    default:
      return backoff(timings.backoffMaxMs);
  }
}

function toldDelayMs({ code, reason, retryAfterMs }: LinkEnd): number | null {
  if (retryAfterMs !== null) return Math.min(retryAfterMs, longestRetryAfterMs);
  if (code !== v2CloseCodes.restart && code !== v2CloseCodes.shed && code !== v2CloseCodes.tooFast) return null;
  const [, seconds] = retryAfterPattern.exec(reason) ?? [];
  return seconds === undefined ? null : Math.min(Number(seconds) * 1_000, longestRetryAfterMs);
}
