import type { ServerResponse } from 'node:http';
import type { ExecutionResult } from 'graphql';
import type { Clock } from '../clock.ts';
import { AegisError, describeError } from '../errors.ts';
import { codeOf, type PresentError } from '../schema/errors.ts';
import type { StreamPlace } from '../schema/streams.ts';
import type { Results } from './active-subscriptions.ts';
import { eventStreamType } from './graphql-execution.ts';
import { createSendWatch } from './send-watch.ts';

/** Proxies cut what is idle for 30 seconds or a minute. A reader that takes nothing for as long is given up. */
const beatMs = 12_000;
/** So long the end waits for what was said last to leave. */
const endGraceMs = 5_000;

const comment = ':\n\n';
const complete = 'event: complete\ndata:\n\n';

/**
 * Answers with a subscription's results as Server-Sent Events, in the form of graphql-sse's distinct connections: `next`
 * for each, `complete` at the end. Where the stream has cursors each `next` has its own as `id`, and an `id` alone stands
 * before the first, so that a reader that is cut off before anything came misses nothing either.
 *
 * One result at a time is handed to the socket, and the next is asked for when the kernel has taken it. An error that a
 * reader gets over by coming back (it was too slow, the gateway restarts) ends in a cut, as one that reads to the `complete` takes the
 * stream for finished. Resolves when the response has ended or closed, and the results have been let go of.
 */
export async function streamEvents(options: {
  readonly response: ServerResponse;
  readonly results: Results;
  readonly place: StreamPlace;
  readonly present: PresentError;
  readonly clock: Clock;
  /** Calls `onEnded` when the credentials of whoever reads have ended. */
  readonly watch: (onEnded: () => void) => () => void;
}): Promise<void> {
  const { response, results, place, present, clock } = options;
  const watch = createSendWatch();
  // Kept here and not raced with the close: each of a race's reactions to a promise lives as long as that promise.
  const sending = new Set<() => void>();
  response.once('close', () => {
    const release = () => {
      for (const taken of sending) taken();
    };
    results.return().then(release, release);
  });
  // Resets, and what was written just before them.
  response.on('error', () => {});
  if (response.destroyed) {
    await results.return();
    return;
  }

  /** Resolves when the kernel has taken the text, or the response has closed and the results have been let go of. */
  function send(text: string): Promise<void> {
    return new Promise((resolve) => {
      const ended = watch.begin();
      const taken = () => {
        sending.delete(taken);
        ended();
        resolve();
      };
      sending.add(taken);
      response.write(text, taken);
    });
  }

  /** Says something last; then the response ends, or is cut. */
  async function end(text: string, ending: 'ended' | 'cut'): Promise<void> {
    if (response.destroyed) return;
    const giveUp = clock.after(endGraceMs, () => response.destroy());
    await send(text);
    giveUp();
    if (ending === 'ended') response.end();
    else response.destroy();
  }

  let isBarred = false;
  const stopWatching = options.watch(() => {
    isBarred = true;
    results.return().catch(() => {});
  });
  const stopBeating = clock.every(beatMs, () => {
    const state = watch.look();
    if (state === 'stuck') response.destroy();
    else if (state === 'idle') void send(comment);
  });
  response.writeHead(200, {
    'content-type': eventStreamType,
    // Nginx would gather events until it has a buffer full of them.
    'x-accel-buffering': 'no',
  });
  try {
    await send(place.cursor === null ? comment : `id: ${place.cursor}\n\n`);
    for await (const result of results) await send(nextEvent(presented(result, present), place.cursor));
    if (isBarred) throw new AegisError('UNAUTHENTICATED');
    await end(complete, 'ended');
  } catch (error) {
    const shown = present(error);
    const { closeCode, retryable } = describeError(codeOf(shown));
    const last = nextEvent({ errors: [shown] }, null);
    if (closeCode !== undefined && retryable) await end(last, 'cut');
    else await end(last + complete, 'ended');
  } finally {
    stopBeating();
    stopWatching();
  }
}

function presented(result: ExecutionResult, present: PresentError): ExecutionResult {
  return result.errors ? { ...result, errors: result.errors.map(present) } : result;
}

/** JSON has no line breaks of its own, and cursors have none. */
function nextEvent(result: ExecutionResult, cursor: string | null): string {
  const id = cursor === null ? '' : `id: ${cursor}\n`;
  return `${id}event: next\ndata: ${JSON.stringify(result)}\n\n`;
}
