import type { WebSocket } from 'ws';
import type { LinkReport } from './context.ts';

/**
 * Frames of one socket, worked on one after the other, a few in each turn of the event loop: a chunk may hold thousands, and
 * others have sent some too. While one takes time, or some are left, nothing is read: TCP makes the agent wait.
 */
export interface FrameQueue<Frame> {
  push(frame: Frame): void;
  /** Who works on frames from now on, as on the first one. */
  handTo(work: (frame: Frame) => Promise<void> | null): void;
  /** Stops reading until the returned function is called, once. */
  hold(): () => void;
  /** Reads again, whatever holds; nothing holds from now on. */
  letGo(): void;
  /** The socket is gone: what it has brought is worked on at once. */
  end(): void;
  readonly isHeld: boolean;
}

export const framesPerTurn = 32;

/** `work` gives a promise where the next frame must wait for it. What it throws, or rejects with, is reported. */
export function createFrameQueue<Frame>(
  socket: Pick<WebSocket, 'pause' | 'resume'>,
  firstWork: (frame: Frame) => Promise<void> | null,
  report: Pick<LinkReport, 'error'>,
): FrameQueue<Frame> {
  /** What the socket had read already when it was told to stop: a chunk's worth at most. The first `begun` are done. */
  let waiting: Frame[] = [];
  let begun = 0;
  let work = firstWork;
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
      failed(error);
    }
    if (!pending) return;
    isWorking = true;
    const release = hold();
    pending.catch(failed).finally(() => {
      isWorking = false;
      workOff();
      release();
    });
  }

  function failed(error: unknown): void {
    report.error(error, 'a frame could not be processed');
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
    handTo(next) {
      work = next;
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

/** Has what a socket reads come into its queue. */
export function readFrames<Frame>(
  socket: WebSocket,
  queue: Pick<FrameQueue<Frame>, 'push'>,
  decode: (data: Buffer, isBinary: boolean) => Frame,
): void {
  socket.on('message', (data, isBinary) => {
    if (data instanceof Buffer) queue.push(decode(data, isBinary));
  });
}
