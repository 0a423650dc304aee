import type { Topics } from './bus.ts';
import { merged, type SharedTopic } from './topic-codecs.ts';

/** What goes to the other gateways: gathered, numbered, and bounded. */
export interface Outbox {
  /** Goes out with whatever else this turn of the event loop tells, and what gathers while texts are under way. */
  add<T extends SharedTopic>(topic: T, hint: Topics[T]): void;
  /** The text of a group of events, JSON, goes out ahead of the hints of the same text, or not at all where it is too much. */
  addBody(text: string): void;
  /** What every text says, the next one at once. */
  takesBodies: boolean;
  /** Sends what has gathered, be it nothing: the others learn that this gateway is there, and whether they missed something. */
  beat(): void;
  /** How many hints were dropped, or are not known to have arrived. */
  readonly lost: number;
  /** Sends what has gathered and takes nothing more; resolves when nothing is under way. */
  close(): Promise<void>;
}

/** So many texts are on their way at once; meanwhile the next one grows. */
const maxUnderWay = 2;
/** So many agents, messages or changes one text may tell of: about a megabyte. Beyond that everything that waits is dropped. */
const maxWaitingItems = 10_000;
/**
 * So many characters of events go with one text: some full groups of usual ones, as they gather at a busy gateway while two texts are
 * under way, and of those two a tenth of what Redis keeps for a subscriber before it cuts it off. What is more is read from the store.
 */
const maxBodiesChars = 1536 * 1024;

export function createOutbox(deps: {
  readonly origin: string;
  /** Resolves when a text is carried, rejects where it is lost. Settles within seconds. */
  readonly send: (text: string) => Promise<void>;
  /** The same for a text of bodies, of which nobody needs to know whether it was lost. */
  readonly sendBodies: (text: string) => Promise<void>;
  readonly logError: (error: unknown, context: string) => void;
}): Outbox {
  let waiting = new Map<SharedTopic, () => readonly unknown[]>();
  let lists = emptyLists();
  let waitingItems = 0;
  let bodies: string[] = [];
  let bodiesChars = 0;
  let takesBodies = false;
  /** Of the last text. A number that the others do not hear tells them that they have missed something. */
  let number = 0;
  let underWay = 0;
  let lost = 0;
  let isScheduled = false;
  let isLosing = false;
  let isClosed = false;
  let onIdle = () => {};

  function take(): { text: string; bodies: readonly string[]; items: number } {
    const hints = Object.fromEntries([...waiting].map(([topic, list]) => [topic, list()]));
    const taken = { bodies, items: waitingItems };
    forget();
    const taking = takesBodies ? { takesBodies } : {};
    return { text: JSON.stringify({ origin: deps.origin, number: ++number, ...taking, hints }), ...taken };
  }

  function forget(): void {
    waiting = new Map();
    lists = emptyLists();
    waitingItems = 0;
    bodies = [];
    bodiesChars = 0;
  }

  function send(): void {
    isScheduled = false;
    if (underWay >= maxUnderWay) return;
    const { text, bodies, items } = take();
    underWay++;
    // Ahead of the hint that tells of them; whoever does not get them reads what it tells of.
    const sentBodies = bodies.length > 0 ? deps.sendBodies(`[${bodies.join(',')}]`).catch(() => {}) : null;
    Promise.all([deps.send(text), sentBodies])
      .then(
        () => {
          isLosing = false;
        },
        (error) => lose(items, error),
      )
      .finally(() => {
        underWay--;
        if (waitingItems > 0) send();
        else if (underWay === 0) onIdle();
      });
  }

  /** Told once, until something arrives again. */
  function lose(items: number, error: unknown): void {
    lost += items;
    if (!isLosing) deps.logError(error, 'hints do not reach the other gateways, which find by polling what they tell');
    isLosing = true;
  }

  return {
    add(topic, hint) {
      if (isClosed) return;
      waitingItems += itemsOf(hint);
      if (waitingItems > maxWaitingItems) {
        number++;
        lose(waitingItems, new Error('more was told than could be carried'));
        return forget();
      }
      const list: Topics[typeof topic][] = lists[topic];
      list.push(hint);
      waiting.set(topic, () => merged(topic, list));
      if (isScheduled) return;
      isScheduled = true;
      setImmediate(send);
    },
    addBody(text) {
      if (isClosed) return;
      bodiesChars += text.length;
      if (bodiesChars <= maxBodiesChars) bodies.push(text);
      else bodies = [];
    },
    get takesBodies() {
      return takesBodies;
    },
    set takesBodies(takes) {
      takesBodies = takes;
      if (!isClosed) send();
    },
    beat: send,
    get lost() {
      return lost;
    },
    close() {
      isClosed = true;
      if (waitingItems > 0) send();
      if (underWay === 0) return Promise.resolve();
      return new Promise((resolve) => {
        onIdle = resolve;
      });
    },
  };
}

function emptyLists(): { [T in SharedTopic]: Topics[T][] } {
  return {
    stored: [],
    presence: [],
    agents: [],
    disconnect: [],
    owned: [],
    queued: [],
    queuedForMany: [],
    credentials: [],
    changed: [],
  };
}

/** How many agents, messages or other things a hint names. */
function itemsOf(hint: Topics[SharedTopic]): number {
  if (Array.isArray(hint)) return hint.length;
  return 'agentUids' in hint ? hint.agentUids.length : 1;
}
