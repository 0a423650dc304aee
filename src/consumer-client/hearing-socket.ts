import { WebSocket } from 'ws';

/** Sockets that end themselves once they have heard nothing for so long, not even a ping: who was at the other end is gone. */
export function hearingSocket(
  silenceMs: number,
): new (
  address: string | URL,
  protocols?: string | string[],
) => WebSocket {
  return class extends WebSocket {
    constructor(address: string | URL, protocols?: string | string[]) {
      super(address, protocols, { handshakeTimeout: silenceMs });
      const silence = setTimeout(() => this.terminate(), silenceMs);
      for (const sign of ['open', 'message', 'ping']) this.on(sign, () => silence.refresh());
      this.once('close', () => clearTimeout(silence));
    }
  };
}
