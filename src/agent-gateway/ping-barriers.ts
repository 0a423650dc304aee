import type { WebSocket } from 'ws';
import type { Clock } from '../clock.ts';

/**
 * An agent answers a ping in the loop that reads frames, and repeats its body: the pong proves that it has read what was
 * written before (agent-wire, "It never acknowledges a command").
 */
export interface PingBarriers {
  /** Resolves true when the agent has read everything written before; false when it did not answer in time or the link ended. */
  raise(): Promise<boolean>;
  /** A pong with this body has come. */
  ponged(body: string): void;
  /** The link has ended. */
  end(): void;
}

const timeoutMs = 10_000;

export function createPingBarriers(socket: WebSocket, clock: Clock): PingBarriers {
  const raised = new Map<string, (isRead: boolean) => void>();
  let count = 0;

  function settle(body: string, isRead: boolean): void {
    raised.get(body)?.(isRead);
    raised.delete(body);
  }

  return {
    raise() {
      if (socket.readyState !== socket.OPEN) return Promise.resolve(false);
      const body = `barrier-${++count}`;
      return new Promise((resolve) => {
        const cancel = clock.after(timeoutMs, () => settle(body, false));
        raised.set(body, (isRead) => {
          cancel();
          resolve(isRead);
        });
        socket.ping(body);
      });
    },
    ponged: (body) => settle(body, true),
    end() {
      for (const body of [...raised.keys()]) settle(body, false);
    },
  };
}
