import type { Scope } from '../access/scope.ts';
import { type Backlog, createBacklog } from '../bus/backlog.ts';
import type { Bus, MessageChange } from '../bus/bus.ts';
import { endable } from '../bus/endable.ts';
import { type Clock, type Poll, poll } from '../clock.ts';
import { createElsewhere } from './elsewhere.ts';
import { isFinal, type Message, statesSince } from './message.ts';
import type { MessageSubject } from './messages.ts';
import type { UpdateQueries } from './update-queries.ts';

/** What becomes of messages, for those who watch. */
export interface MessageUpdates {
  /** Calls `listener` with every change of this message that is heard of, until the returned function is called. */
  watch(messageId: string, listener: (message: Message) => void): () => void;
  /** As `Messages.updates`. */
  follow(scope: Scope, subject: MessageSubject, signal: AbortSignal): AsyncIterable<Message>;
}

/** What a follower knows of a message. */
interface Known {
  readonly revision: number;
  readonly sequence: number;
  readonly createdAtMs: number;
  /** By the monotonic clock; null while the message is not final. */
  readonly finalSinceMs: number | null;
}

interface Follower {
  readonly scope: Scope;
  readonly subject: MessageSubject;
  readonly wants: (message: Message) => boolean;
  readonly backlog: Backlog<Message>;
  /** By message id. */
  readonly known: Map<string, Known>;
  /** By the database's clock, when it began to listen; what was changed before then and is not known is no news. */
  readonly sinceMs: number;
  readonly startedMs: number;
  /** Messages beyond this sequence may be new. */
  floor: number;
}

const pollIntervalMs = 1_000;
const pageSize = 200;
/** So many messages that are not final are shown to begin with. */
const maxPresent = 10_000;
const maxKnown = 20_000;
const maxLatest = 1_000;
const maxWaiting = 50_000;
const maxWaitingBytes = 64 * 1024 * 1024;
/** So much later than its sequence was drawn a message may be committed. */
const commitMs = 10_000;
/** So long a hint may be on its way. */
const hintMs = 60_000;

export function createMessageUpdates(deps: {
  readonly queries: UpdateQueries;
  readonly bus: Bus;
  readonly clock: Clock;
  readonly monotonicMs: () => number;
  readonly logError: (error: unknown, context: string) => void;
}): MessageUpdates {
  const { queries, bus, clock, monotonicMs } = deps;
  const listeners = new Map<string, Set<(message: Message) => void>>();
  const followers = new Set<Follower>();
  /** Ids of messages that are watched, each as often as it is. */
  const watched: string[] = [];
  let looking: Poll | null = null;

  function hear(changed: readonly Message[]): void {
    if (listeners.size === 0) return;
    for (const message of changed)
      for (const key of keysOf(message)) for (const listener of [...(listeners.get(key) ?? [])]) listener(message);
  }

  bus.subscribe('messages', hear);
  bus.subscribe('missed', () => looking?.now());
  const elsewhere = createElsewhere({
    ...{ bus, hear, logError: deps.logError },
    findAll: queries.findAll,
    isWanted: (change) => listeners.size > 0 && keysOf(change).some((key) => listeners.has(key)),
  });

  function listen(key: string, listener: (message: Message) => void): () => void {
    const those = listeners.get(key) ?? new Set();
    listeners.set(key, those.add(listener));
    return () => {
      those.delete(listener);
      if (those.size === 0 && listeners.get(key) === those) listeners.delete(key);
    };
  }

  async function* follow(scope: Scope, subject: MessageSubject, signal: AbortSignal): AsyncGenerator<Message> {
    const backlog = createBacklog<Message>({ maxItems: maxWaiting, maxBytes: maxWaitingBytes, sizeBytes });
    const wants = (message: Message) => scope.orgId === null || message.orgId === scope.orgId;
    signal.addEventListener('abort', backlog.end);
    // First listen, then look: what changes meanwhile is heard, and what is heard twice is told by its revision.
    const release = listen(keyOf(subject), (message) => {
      if (wants(message)) backlog.offer(message);
    });
    try {
      const since = { sinceMs: (await queries.now()).getTime(), startedMs: monotonicMs() };
      const follower: Follower = { scope, subject, wants, backlog, known: new Map(), ...since, floor: 0 };
      yield* present(follower);
      followers.add(follower);
      beginLooking();
      try {
        for (let message = await backlog.next(); message; message = await backlog.next())
          yield* statesSince(message, note(follower, message));
      } finally {
        followers.delete(follower);
        endLooking();
      }
    } finally {
      release();
    }
  }

  async function* present(follower: Follower): AsyncGenerator<Message> {
    const { scope, subject, wants } = follower;
    if ('agentUid' in subject) {
      const earliest = earliestNews(follower);
      follower.floor = await queries.lastBefore(subject.agentUid, earliest);
      for (const message of await queries.latest(scope, subject.agentUid, earliest, maxLatest)) note(follower, message);
    }
    let after = -1;
    for (let shown = 0; shown < maxPresent; shown += pageSize) {
      const page = await queries.present(scope, subject, after, pageSize);
      for (const message of page.filter(wants)) {
        note(follower, message);
        yield message;
      }
      if (page.length < pageSize) break;
      after = page.at(-1)?.sequence ?? after;
    }
  }

  /** Remembers how a message stands; gives the revision beyond which it is news, its own where it is none. */
  function note({ known, sinceMs }: Follower, message: Message): number {
    const { id, sequence, revision, createdAt, history, status } = message;
    const before = known.get(id);
    if (before && before.revision >= revision) return revision;
    known.set(id, {
      ...{ revision, sequence },
      createdAtMs: createdAt.getTime(),
      finalSinceMs: isFinal(status) ? monotonicMs() : null,
    });
    if (before) return before.revision;
    if (createdAt.getTime() > sinceMs - commitMs) return -1;
    // One of those beyond the first that were shown, or that became final between two looks.
    return history.findLast(({ at }) => at.getTime() <= sinceMs)?.revision ?? 0;
  }

  /** Hints may be lost: while anybody waits for news it is looked for. */
  function beginLooking(): void {
    looking ??= poll(clock, pollIntervalMs, look, (error) =>
      deps.logError(error, 'what became of messages could not be read'),
    );
  }

  function endLooking(): void {
    if (followers.size > 0 || watched.length > 0) return;
    looking?.stop();
    looking = null;
  }

  function watch(messageId: string, listener: (message: Message) => void): () => void {
    const release = listen(`message ${messageId}`, listener);
    watched.push(messageId);
    beginLooking();
    return () => {
      release();
      watched.splice(watched.indexOf(messageId), 1);
      endLooking();
    };
  }

  /** Looks for what no hint told, for all followers that have nothing to read. */
  async function look(): Promise<void> {
    elsewhere.read(watched);
    const idle = [...followers].filter(({ backlog }) => backlog.isEmpty);
    idle.forEach(forget);
    const told = idle.flatMap((follower, index) => awaited(follower).map((known) => ({ ...known, follower: index })));
    const places = idle.flatMap(({ subject, floor }, index) =>
      'agentUid' in subject ? [{ follower: index, agentUid: subject.agentUid, after: floor }] : [],
    );
    if (told.length === 0 && places.length === 0) return;
    for (const { follower, message } of await queries.news(told, places)) {
      const reader = idle[follower];
      if (reader?.wants(message)) reader.backlog.offer(message);
    }
  }

  /** What may have changed since, and what a look for new messages comes upon again. */
  function awaited({ known, subject, floor }: Follower): { id: string; revision: number }[] {
    const isAgent = 'agentUid' in subject;
    return [...known]
      .filter(([, { sequence, finalSinceMs }]) => finalSinceMs === null || (isAgent && sequence > floor))
      .map(([id, { revision }]) => ({ id, revision }));
  }

  /** The time, by the database's clock, before which nothing can have been accepted that is not to be seen yet. */
  function earliestNews({ sinceMs, startedMs }: Follower): Date {
    return new Date(sinceMs + (monotonicMs() - startedMs) - commitMs);
  }

  function forget(follower: Follower): void {
    const earliestMs = earliestNews(follower).getTime();
    const { known } = follower;
    for (const [id, { sequence, createdAtMs, finalSinceMs }] of known) {
      if (createdAtMs < earliestMs) follower.floor = Math.max(follower.floor, sequence);
      const isOver = finalSinceMs !== null && finalSinceMs < monotonicMs() - hintMs;
      if (isOver || known.size > maxKnown) known.delete(id);
    }
  }

  return {
    watch,
    follow: (scope, subject, signal) => endable(signal, (ending) => follow(scope, subject, ending)),
  };
}

function keyOf(subject: MessageSubject): string {
  if ('messageId' in subject) return `message ${subject.messageId}`;
  return 'broadcastId' in subject ? `broadcast ${subject.broadcastId}` : `agent ${subject.agentUid}`;
}

function keysOf({ id, broadcastId, agentUid }: MessageChange): string[] {
  const keys = [`message ${id}`, `agent ${agentUid}`];
  return broadcastId === null ? keys : [...keys, `broadcast ${broadcastId}`];
}

const sizes = new WeakMap<Message, number>();

/** What a message holds of memory, roughly; worked out once, whatever the number of followers. */
function sizeBytes(message: Message): number {
  let size = sizes.get(message);
  if (size === undefined) {
    size = 1_024 + 2 * (JSON.stringify(message.payload)?.length ?? 0);
    sizes.set(message, size);
  }
  return size;
}
