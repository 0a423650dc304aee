import { Kind, parse } from 'graphql';
import { consumerErrorOf, isPassing } from './consumer-error.ts';

/** How a subscription to events comes back after its connection was lost. */
export interface Resumption {
  /** How long, from the loss on, it goes on trying before it throws. Five minutes where absent. */
  readonly patienceMs?: number;
  /**
   * Before attempt n it waits a random time up to `firstDelayMs * 2^n` and never more than `maxDelayMs`, so that the clients of
   * a gateway that restarts do not all come back at once. 500 ms and 30 s where absent.
   */
  readonly firstDelayMs?: number;
  readonly maxDelayMs?: number;
  /** From 0 up to 1; `Math.random` where absent. */
  readonly random?: () => number;
}

/** When the client's socket was last open, by `performance.now()`. */
export interface Connection {
  readonly openedAtMs: number;
  /** Null: it still is. */
  readonly closedAtMs: number | null;
}

/** Whether a subscription can go on at a cursor: it must take one as `$after`. */
export function takesCursor(document: string): boolean {
  return parse(document).definitions.some(
    (definition) =>
      definition.kind === Kind.OPERATION_DEFINITION &&
      definition.variableDefinitions?.some(({ variable }) => variable.name.value === 'after'),
  );
}

/**
 * One stream of results over as many connections as it takes, without a gap or a repeat: each later one goes on at the cursor of
 * the last result that was taken from here, and the first one at a cursor that was asked for before it began.
 *
 * Throws a ConsumerError for what will not pass by itself; for what a subscription meets that was never connected;
 * once its patience is at an end; and where a connection is lost after a result without a cursor. Returning it ends it
 * at once, also while it waits.
 */
export function resuming<Result>(options: {
  /** Results from one connection on, beyond the cursor; throws what graphql-ws throws. */
  readonly open: (after: string) => AsyncIterableIterator<Result>;
  /** The cursor where the stream of events stands now. */
  readonly cursorOfNow: () => Promise<string>;
  readonly after: string | null;
  /** Null: the client was never connected. */
  readonly lastConnection: () => Connection | null;
  /** Ends it from outside. */
  readonly signal: AbortSignal;
  readonly resumption: Resumption;
}): AsyncIterableIterator<Result, undefined> {
  const { open, cursorOfNow, lastConnection, signal } = options;
  const { patienceMs = 300_000, firstDelayMs = 500, maxDelayMs = 30_000, random = Math.random } = options.resumption;
  const ending = new AbortController();
  let cursor = options.after;
  let hasCursors = true;
  let connection: AsyncIterableIterator<Result> | null = null;
  let openedAtMs = 0;
  /** The loss that it tries to get over, until a connection has proved good. */
  let loss: { readonly sinceMs: number; attempts: number; isRefused: boolean } | null = null;

  signal.addEventListener('abort', end);

  function stop(): void {
    signal.removeEventListener('abort', end);
    ending.abort();
  }

  async function connect(): Promise<AsyncIterableIterator<Result>> {
    openedAtMs = performance.now();
    cursor ??= await cursorOfNow();
    // `return` may have come meanwhile.
    if (!ending.signal.aborted) connection = open(cursor);
    return connection ?? ended<Result>();
  }

  /** Waits before the next attempt; throws where there shall be none. */
  async function getOver(reason: unknown): Promise<void> {
    connection = null;
    const error = consumerErrorOf(reason);
    const nowMs = performance.now();
    const last = lastConnection();
    const lastedMs = last ? (last.closedAtMs ?? nowMs) - Math.max(last.openedAtMs, openedAtMs) : 0;
    // So long that it was no failed attempt, though nothing came.
    if (lastedMs >= maxDelayMs) loss = null;
    loss ??= { sinceMs: nowMs, attempts: 0, isRefused: false };
    // The token may have run out; it is asked for anew, once.
    const isRefused = error.code === 'UNAUTHENTICATED';
    const mayPass = isRefused ? !loss.isRefused : isPassing(error);
    const delayMs = random() * Math.min(maxDelayMs, firstDelayMs * 2 ** loss.attempts);
    const isPatient = nowMs + delayMs - loss.sinceMs <= patienceMs;
    if (!mayPass || !isPatient || !hasCursors || !last) {
      stop();
      throw error;
    }
    loss.attempts++;
    loss.isRefused ||= isRefused;
    await pause(delayMs, ending.signal);
  }

  function take(result: Result): IteratorYieldResult<Result> {
    loss = null;
    const seen = cursorIn(result);
    if (seen === null) hasCursors = false;
    else cursor = seen;
    return { done: false, value: result };
  }

  async function end(): Promise<IteratorReturnResult<undefined>> {
    stop();
    await connection?.return?.();
    return { done: true, value: undefined };
  }

  return {
    async next() {
      while (!ending.signal.aborted) {
        try {
          const result = await (connection ?? (await connect())).next();
          return result.done ? end() : take(result.value);
        } catch (error) {
          if (!ending.signal.aborted) await getOver(error);
        }
      }
      return { done: true, value: undefined };
    },
    return: end,
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

async function* ended<Result>(): AsyncGenerator<Result> {}

function pause(delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(end, delayMs);
    signal.addEventListener('abort', end);
    function end(): void {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    }
  });
}

/** The cursor of an event, or where a gap ends; null where the document does not select it. */
function cursorIn(result: unknown): string | null {
  if (typeof result !== 'object' || result === null) return null;
  const items: unknown[] = Object.values(result);
  for (const item of items) {
    if (typeof item !== 'object' || item === null) continue;
    if ('cursor' in item && typeof item.cursor === 'string') return item.cursor;
    if ('to' in item && typeof item.to === 'string') return item.to;
  }
  return null;
}
