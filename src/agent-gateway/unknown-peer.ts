import type { WebSocket } from 'ws';
import type { Upgrade } from '../http/upgrade.ts';
import type { LinkReport } from './context.ts';
import { reportFrameFaults } from './frame-faults.ts';
import type { FrameQueue } from './frame-queue.ts';

/**
 * Looks after a socket whose peer has proved nothing, until the returned function hands it over: reads no more than about
 * `maxBytes`, since what is sent is kept in memory until a frame is whole. After the handover nothing of the handshake is
 * held by the socket any more, the request's headers least of all.
 */
export function guardUnknownPeer(
  socket: WebSocket,
  { socket: connection, origin }: Pick<Upgrade, 'socket' | 'origin'>,
  queue: Pick<FrameQueue<never>, 'hold' | 'end'>,
  options: {
    readonly maxBytes: number;
    readonly report: Pick<LinkReport, 'refusedFrame'>;
    /** The socket is gone; called only before the handover. */
    readonly onClosed: () => void;
  },
): () => void {
  const { maxBytes, report, onClosed } = options;
  const ignoreFaults = reportFrameFaults(socket, report, origin.clientAddress);
  let bytes = 0;
  let release: (() => void) | null = null;

  function count(chunk: Uint8Array): void {
    bytes += chunk.length;
    if (bytes > maxBytes) release ??= queue.hold();
  }

  function closed(): void {
    queue.end();
    onClosed();
  }

  connection.on('data', count);
  socket.once('close', closed);
  return () => {
    ignoreFaults();
    connection.off('data', count);
    socket.off('close', closed);
    release?.();
  };
}
