import type { Duplex } from 'node:stream';
import type { FrameQueue } from './frame-queue.ts';

/**
 * Reads no more than about `maxBytes` of a socket until the returned function is called: what somebody unknown sends is kept
 * in memory until a frame is whole.
 */
export function holdBeyond(socket: Duplex, maxBytes: number, queue: Pick<FrameQueue<never>, 'hold'>): () => void {
  let bytes = 0;
  let release: (() => void) | null = null;
  function count(chunk: Uint8Array): void {
    bytes += chunk.length;
    if (bytes > maxBytes) release ??= queue.hold();
  }
  socket.on('data', count);
  return () => {
    socket.off('data', count);
    release?.();
    release = null;
  };
}
