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

/** The bus between the workers of one machine. */
export function createWorkersBus(
  channel: WorkersChannel,
  deps: {
    readonly instanceId: string;
    readonly clock: Clock;
    readonly logError: (error: unknown, context: string) => void;
  },
): Promise<Bus> {
  return createRelayedBus(
    async ({ heard }) => ({
      send: channel.tell,
      async check() {
        if (!channel.isConnected) throw new Error('the other workers cannot be reached');
      },
      close: channel.onTold(heard),
    }),
    deps,
  );
}
