import type { Duplex } from 'node:stream';
import type { WebSocket } from 'ws';
import type { Clock } from '../clock.ts';
import type { Allowance } from './allowance.ts';
import type { FrameQueue } from './frame-queue.ts';

/** Reads no more of a socket while its agent has overdrawn its allowance: TCP makes the agent wait, and nobody closes it. */
export interface Throttle {
  tookFrames(count: number): void;
  readonly isPaused: boolean;
  end(): void;
}

export function createThrottle(
  {
    socket,
    connection,
    queue,
    onPause,
  }: {
    readonly socket: WebSocket;
    readonly connection: Duplex;
    readonly queue: Pick<FrameQueue<never>, 'hold'>;
    readonly onPause: () => void;
  },
  allowance: Allowance,
  clock: Clock,
): Throttle {
  let resume: (() => void) | null = null;
  let cancelTimer = () => {};
  let hasEnded = false;

  function pauseIfOverdrawn(): void {
    if (resume || hasEnded) return;
    const { overdrawnMs } = allowance;
    if (overdrawnMs === 0) return;
    resume = queue.hold();
    onPause();
    wait(overdrawnMs);
  }

  function wait(overdrawnMs: number): void {
    cancelTimer = clock.after(Math.ceil(overdrawnMs), () => {
      // Frames that had been read by then were still taken.
      const { overdrawnMs: stillMs } = allowance;
      if (stillMs > 0) wait(stillMs);
      else release();
    });
  }

  function release(): void {
    cancelTimer();
    resume?.();
    resume = null;
  }

  function tookFrames(count: number): void {
    allowance.tookFrames(count);
    pauseIfOverdrawn();
  }

  function tookBytes(chunk: Uint8Array): void {
    allowance.tookBytes(chunk.length);
    pauseIfOverdrawn();
  }

  const tookControl = () => tookFrames(1);
  connection.on('data', tookBytes);
  for (const control of ['ping', 'pong'] as const) socket.on(control, tookControl);

  return {
    tookFrames,
    get isPaused() {
      return resume !== null;
    },
    end() {
      hasEnded = true;
      connection.off('data', tookBytes);
      release();
    },
  };
}
