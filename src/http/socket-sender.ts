import type { WebSocket } from 'ws';
import { createSendWatch, type SendWatch } from './send-watch.ts';

/** What goes out to one socket. */
export interface SocketSender extends Pick<SendWatch, 'look'> {
  /** Resolves when the kernel has taken the text: what makes a slow reader's subscriptions wait. */
  readonly send: (text: string) => Promise<void>;
}

/** From here on a client that does not read its answers is not read from: it could go on asking for ever. */
const maxUnreadBytes = 256 * 1024;

/** Sends to a socket, and answers its pings. */
export function createSocketSender(socket: WebSocket): SocketSender {
  const watch = createSendWatch();

  /** Hands something to the socket by `write`, which calls back when the kernel has taken it or never will. */
  function handOver(
    write: (callback: (error?: Error | null) => void) => void,
    settled: (error?: Error | null) => void,
  ): void {
    const taken = watch.begin();
    write((error) => {
      taken();
      if (socket.isPaused && socket.bufferedAmount <= maxUnreadBytes) socket.resume();
      settled(error);
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
      return new Promise((resolve, reject) => {
        if (socket.readyState !== socket.OPEN) return resolve();
        return handOver(
          (callback) => socket.send(text, callback),
          // A socket that closes meanwhile ends its subscriptions by itself.
          (error) => (error && socket.readyState === socket.OPEN ? reject(error) : resolve()),
        );
      });
    },
    look: watch.look,
  };
}
