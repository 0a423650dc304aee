import type { WebSocket } from 'ws';

/**
 * Frames of one socket, worked on one after the other, a few in each turn of the event loop: a chunk may hold thousands, and
 * others have sent some too. While one takes time, or some are left, nothing is read: TCP makes the agent wait.
 */
export interface FrameQueue<Frame> {
  push(frame: Frame): void;
  /** Stops reading until the returned function is called, once. */
  hold(): () => void;
  /** Reads again, whatever holds; nothing holds from now on. */
  letGo(): void;
  /** The socket is gone: what it has brought is worked on at once. */
  end(): void;
  readonly isHeld: boolean;
}

export const framesPerTurn = 32;

/** `work` gives a promise where the next frame must wait for it. What it throws, or rejects with, goes to `onError`. */
export function createFrameQueue<Frame>(
  socket: Pick<WebSocket, 'pause' | 'resume'>,
  work: (frame: Frame) => Promise<void> | null,
  onError: (error: unknown) => void,
): FrameQueue<Frame> {
  /** What the socket had read already when it was told to stop: a chunk's worth at most. The first `begun` are done. */
  let waiting: Frame[] = [];
  let begun = 0;
  let isWorking = false;
  let leftInTurn = framesPerTurn;
  let isTurnOver = true;
  let releaseBacklog: (() => void) | null = null;
  let holds = 0;
  let mayHold = true;
  let hasEnded = false;

  function hold(): () => void {
    if (holds++ === 0 && mayHold) socket.pause();
    return () => {
      if (--holds === 0) socket.resume();
    };
  }

  function begin(frame: Frame): void {
    countInTurn();
    let pending: Promise<void> | null = null;
    try {
      pending = work(frame);
    } catch (error) {
      onError(error);
    }
    if (!pending) return;
    isWorking = true;
    const release = hold();
    pending.catch(onError).finally(() => {
      isWorking = false;
      workOff();
      release();
    });
  }

  function countInTurn(): void {
    leftInTurn--;
    if (!isTurnOver) return;
    isTurnOver = false;
    setImmediate(() => {
      isTurnOver = true;
      leftInTurn = framesPerTurn;
      workOff();
    });
  }

  function workOff(): void {
    while (!isWorking && begun < waiting.length && (leftInTurn > 0 || hasEnded)) {
      for (const frame of waiting.slice(begun, ++begun)) begin(frame);
    }
    if (begun < waiting.length) {
      releaseBacklog ??= hold();
      return;
    }
    waiting = [];
    begun = 0;
    releaseBacklog?.();
    releaseBacklog = null;
  }

  return {
    push(frame) {
      if (!isWorking && waiting.length === 0 && leftInTurn > 0) return begin(frame);
      waiting.push(frame);
      workOff();
    },
    hold,
    letGo() {
      mayHold = false;
      socket.resume();
    },
    end() {
      hasEnded = true;
      workOff();
    },
    get isHeld() {
      return holds > 0 && mayHold;
    },
  };
}
