import type { WebSocket } from 'ws';
import type { ErrorCode } from '../errors.ts';
import type { LinkReport } from './context.ts';

/**
 * Counts what ws finds wrong with a peer's framing, until the returned function is called; ws has closed the socket with the
 * right code by then.
 */
export function reportFrameFaults(
  socket: WebSocket,
  report: Pick<LinkReport, 'refusedFrame'>,
  peer: string | null,
): () => void {
  function tell(error: Error): void {
    const code = frameFault(error);
    if (code) report.refusedFrame(peer ?? 'unknown', code);
  }
  socket.on('error', tell);
  return () => socket.off('error', tell);
}

/** The catalogue's name for a fault that ws found in the framing itself; null for what is no fault of the peer's. */
function frameFault(error: Error): ErrorCode | null {
  if (!('code' in error) || typeof error.code !== 'string' || !error.code.startsWith('WS_ERR_')) return null;
  if (error.code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH') return 'FRAME_TOO_LARGE';
  return error.code === 'WS_ERR_INVALID_UTF8' ? 'FRAME_NOT_UTF8' : 'FRAME_MALFORMED';
}
