import type { Clock } from '../clock.ts';
import type { Bus } from './bus.ts';
import { createInbox } from './inbox.ts';
import { createMemoryBus } from './memory-bus.ts';
import { createOutbox } from './outbox.ts';
import { type Telling, tellAbroad } from './topic-codecs.ts';

/** Brings texts to every other gateway that it reaches, in the order of sending, or loses them. */
export interface Carrier {
  /** Resolves when the text is on its way, rejects where it is lost. Settles within seconds. */
  send(text: string): Promise<void>;
  /** The same for bodies, which come ahead of what is sent after them, or not at all. */
  sendBodies(text: string): Promise<void>;
  /** Whether bodies are to be brought here. */
  takeBodies(isTaking: boolean): void;
  /** Rejects with the reason where nothing is carried. */
  check(): Promise<void>;
  close(): void;
}

/** Whom a carrier gives what it brings. */
export interface CarrierListener {
  /** A text of another gateway, or of this one. */
  heard(text: string): void;
  /** Bodies of another gateway. */
  heardBodies(text: string): void;
  /** Texts come again, after some may not have come. */
  returned(): void;
}

/** So soon others notice that they have missed something, where nothing else is told. */
const beatIntervalMs = 1_000;
const closeTimeoutMs = 1_000;

/**
 * The bus between gateways, whatever carries it: listeners of this process are called at once, those of the others through the
 * carrier. Texts are numbered, so that whoever misses one knows it from the next, and sent every second, be there nothing to
 * tell. What is lost costs a look at the database.
 */
export async function createRelayedBus(
  open: (listener: CarrierListener) => Promise<Carrier>,
  deps: {
    readonly instanceId: string;
    readonly clock: Clock;
    readonly monotonicMs?: () => number;
    readonly logError: (error: unknown, context: string) => void;
  },
): Promise<Bus> {
  const { instanceId, clock, logError, monotonicMs = () => performance.now() } = deps;
  const local = createMemoryBus(logError);
  const inbox = createInbox({ self: instanceId, local, clock, monotonicMs, logError });
  const carrier = await open({ heard: inbox.take, heardBodies: inbox.takeBodies, returned: inbox.miss });
  const { send, sendBodies } = carrier;
  const outbox = createOutbox({ origin: instanceId, send, sendBodies, logError });
  const stopBeating = clock.every(beatIntervalMs, outbox.beat);
  const telling: Telling = {
    tell: outbox.add,
    tellBody: (text) => void (inbox.hasTakers && outbox.addBody(text())),
  };
  let bodyListeners = 0;

  function listenToBodies(change: 1 | -1): void {
    bodyListeners += change;
    const isTaking = bodyListeners > 0;
    if (isTaking === outbox.takesBodies) return;
    carrier.takeBodies(isTaking);
    outbox.takesBodies = isTaking;
  }

  return {
    publish(topic, message) {
      local.publish(topic, message);
      tellAbroad(topic, message, telling);
    },
    subscribe(topic, listener) {
      const leave = local.subscribe(topic, listener);
      if (topic !== 'bodies') return leave;
      listenToBodies(1);
      let hasLeft = false;
      return () => {
        leave();
        if (!hasLeft) listenToBodies(-1);
        hasLeft = true;
      };
    },
    get peers() {
      return inbox.peers;
    },
    get lost() {
      return outbox.lost;
    },
    check: () => carrier.check(),
    async close() {
      stopBeating();
      inbox.stop();
      await local.close();
      let cancel = () => {};
      const timeout = new Promise<void>((resolve) => {
        cancel = clock.after(closeTimeoutMs, resolve);
      });
      await Promise.race([outbox.close(), timeout]);
      cancel();
      carrier.close();
    },
  };
}
