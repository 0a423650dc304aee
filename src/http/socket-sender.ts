import type { WebSocket } from 'ws';
import { createSendWatch, type SendWatch } from './send-watch.ts';

/** What goes out to one socket. */
export interface SocketSender extends Pick<SendWatch, 'look'> {
  /**
   * Resolves when the kernel has taken the text, which makes a slow reader's subscriptions wait, or where it never will.
   * Never rejects.
   */
  readonly send: (text: string) => Promise<void>;
}

/** From here on a client that does not read its answers is not read from: it could go on asking for ever. */
const maxUnreadBytes = 256 * 1024;

/** Sends to a socket, and answers its pings. */
export function createSocketSender(socket: WebSocket): SocketSender {
  const watch = createSendWatch();

  /** Hands something to the socket by `write`, which calls back when the kernel has taken it or never will. */
  function handOver(write: (callback: () => void) => void, settled: () => void): void {
    const taken = watch.begin();
    write(() => {
      taken();
      if (socket.isPaused && socket.bufferedAmount <= maxUnreadBytes) socket.resume();
      settled();
    });
    if (socket.bufferedAmount > maxUnreadBytes) socket.pause();
  }

  socket.on('ping', (body) => {
    if (socket.readyState === socket.OPEN)
      handOver(
        (callback) => socket.pong(body, false, callback),
        () => {},
      );
  });

  return {
    send(text) {
      return new Promise((resolve) => {
        if (socket.readyState !== socket.OPEN) return resolve();
        // Where it fails the socket is about to close, which ends its subscriptions: no operation has failed.
        return handOver((callback) => socket.send(text, callback), resolve);
      });
    },
    look: watch.look,
  };
}
