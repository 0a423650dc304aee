import type { WebSocket } from 'ws';

/** Frames of one socket, worked on one after the other. While one takes time nothing is read: TCP makes the agent wait. */
export interface FrameQueue<Frame> {
  push(frame: Frame): void;
  /** Stops reading until the returned function is called, once. */
  hold(): () => void;
  /** Reads again, whatever holds; nothing holds from now on. */
  letGo(): void;
  readonly isHeld: boolean;
}

/** `work` gives a promise where the next frame must wait for it. What it throws, or rejects with, goes to `onError`. */
export function createFrameQueue<Frame>(
  socket: Pick<WebSocket, 'pause' | 'resume'>,
  work: (frame: Frame) => Promise<void> | null,
  onError: (error: unknown) => void,
): FrameQueue<Frame> {
  /** What the socket had read already when it was told to stop: a chunk's worth at most. */
  const waiting: Frame[] = [];
  let isWorking = false;
  let holds = 0;
  let mayHold = true;

  function hold(): () => void {
    if (holds++ === 0 && mayHold) socket.pause();
    return () => {
      if (--holds === 0) socket.resume();
    };
  }

  function begin(frame: Frame): void {
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
      while (!isWorking && waiting.length > 0) waiting.splice(0, 1).forEach(begin);
      release();
    });
  }

  return {
    push(frame) {
      if (isWorking) waiting.push(frame);
      else begin(frame);
    },
    hold,
    letGo() {
      mayHold = false;
      socket.resume();
    },
    get isHeld() {
      return holds > 0 && mayHold;
    },
  };
}
