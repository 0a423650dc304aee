import type { Clock } from '../clock.ts';
import type { Bus } from './bus.ts';
import { createRelayedBus } from './relay.ts';

/** Brings texts to the other workers of this machine, in order. */
export interface WorkersChannel {
  /** Resolves when the text is on its way, rejects where it is lost. */
  tell(text: string): Promise<void>;
  /** Calls back with what the others tell, until the returned function is called. */
  onTold(listener: (text: string) => void): () => void;
  readonly isConnected: boolean;
}

/** The bus between the workers of one machine. Bodies go a way of their own, so that hints never wait for room. */
export function createWorkersBus(
  channels: { readonly hints: WorkersChannel; readonly bodies: WorkersChannel },
  deps: {
    readonly instanceId: string;
    readonly clock: Clock;
    readonly logError: (error: unknown, context: string) => void;
  },
): Promise<Bus> {
  const { hints, bodies } = channels;
  return createRelayedBus(async ({ heard, heardBodies }) => {
    const leave = hints.onTold(heard);
    let leaveBodies: (() => void) | null = null;
    function takeBodies(isTaking: boolean): void {
      leaveBodies?.();
      leaveBodies = isTaking ? bodies.onTold(heardBodies) : null;
    }
    return {
      send: hints.tell,
      sendBodies: bodies.tell,
      takeBodies,
      async check() {
        if (!hints.isConnected) throw new Error('the other workers cannot be reached');
      },
      close() {
        leave();
        takeBodies(false);
      },
    };
  }, deps);
}
