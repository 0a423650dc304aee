import type { CommandKind } from '../../agent-gateway/wire/channels.ts';

/** What an agent keeps over restarts, and where. */

export interface StoredIdentity {
  readonly agentId: string;
  readonly orgId: string | null;
  /** Of its Ed25519 key: 32 bytes, secret. */
  readonly seed: Uint8Array;
  /** Of the key that takes its place, while the gateway has not agreed to it. */
  readonly nextSeed: Uint8Array | null;
  /** Given by the gateway; null before the first session. */
  readonly uid: string | null;
  /** The fingerprints of the gateway keys that it trusts. */
  readonly pins: readonly string[];
  /** Those that it was configured with when `pins` began; others in the configuration begin anew. */
  readonly configuredPins: readonly string[];
  /** The highest that it was ever granted; 0 before the first. */
  readonly epoch: number;
  /** The digest of what it last told of itself and was let in with; null before that. */
  readonly enrolledAs: string | null;
}

/** Something that waits for the gateway's acknowledgement; an `error` for being written. */
export interface OutboxItem {
  readonly id: string;
  readonly type: 'event' | 'response' | 'error';
  readonly channel: string;
  /** JSON. */
  readonly payloadText: string;
  readonly timestampMs: number;
  readonly priority: Priority;
  /** The command that it answers. */
  readonly replyTo: string | null;
  readonly traceparent: string | null;
}

export type Priority = 'high' | 'normal';

/** A command that the agent has taken charge of. */
export interface TakenCommand {
  readonly id: string;
  readonly kind: CommandKind;
  /** JSON. */
  readonly payloadText: string;
  /** The wall clock. */
  readonly takenAtMs: number;
  /** How long from then on it may still be begun; null where that never ends. */
  readonly expiresInMs: number | null;
  readonly traceparent: string | null;
  /** Whether the handler was given it. */
  readonly isBegun: boolean;
}

/** One change; what stands together in one `append` is kept together or not at all. */
export type JournalEntry =
  | { readonly op: 'put'; readonly item: OutboxItem }
  /** Acknowledged, refused or written: outbox items that leave. */
  | { readonly op: 'drop'; readonly ids: readonly string[] }
  | { readonly op: 'take'; readonly command: TakenCommand }
  | { readonly op: 'begin'; readonly id: string }
  | { readonly op: 'done'; readonly id: string }
  /** Commands taken before, by id, oldest first. */
  | { readonly op: 'seen'; readonly ids: readonly string[] };

export interface StoredAgent {
  /** Null in a new store. */
  readonly identity: StoredIdentity | null;
  /** In the order in which they were put. */
  readonly outbox: readonly OutboxItem[];
  /** Taken and not done, in the order in which they were taken. */
  readonly commands: readonly TakenCommand[];
  /** Ids of commands ever taken, the last 10,000 at least, oldest first. */
  readonly seenIds: readonly string[];
}

/** Where an agent keeps these. One agent at a time; each promise resolves once what it is about outlives the process. */
export interface AgentStore {
  /** Called first, and once for each agent that uses the store. */
  open(): Promise<StoredAgent>;
  saveIdentity(identity: StoredIdentity): Promise<void>;
  /** Calls keep their order. A call that rejects has changed nothing. */
  append(entries: readonly JournalEntry[]): Promise<void>;
  close(): Promise<void>;
}

export const maxSeenIds = 10_000;

/** What a journal comes to. */
export class JournalContents {
  readonly #outbox = new Map<string, OutboxItem>();
  readonly #commands = new Map<string, TakenCommand>();
  readonly #seenIds = new Set<string>();

  apply(entry: JournalEntry): void {
    switch (entry.op) {
      case 'put':
        this.#outbox.set(entry.item.id, entry.item);
        break;
      case 'drop':
        for (const id of entry.ids) this.#outbox.delete(id);
        break;
      case 'take':
        this.#commands.set(entry.command.id, entry.command);
        this.#see(entry.command.id);
        break;
      case 'begin': {
        const command = this.#commands.get(entry.id);
        if (command) this.#commands.set(entry.id, { ...command, isBegun: true });
        break;
      }
      case 'done':
        this.#commands.delete(entry.id);
        break;
      case 'seen':
        for (const id of entry.ids) this.#see(id);
    }
  }

  read(identity: StoredIdentity | null): StoredAgent {
    return {
      identity,
      outbox: [...this.#outbox.values()],
      commands: [...this.#commands.values()],
      seenIds: [...this.#seenIds],
    };
  }

  /** The shortest journal that comes to the same. */
  *entries(): Generator<JournalEntry> {
    if (this.#seenIds.size > 0) yield { op: 'seen', ids: [...this.#seenIds] };
    for (const command of this.#commands.values()) yield { op: 'take', command };
    for (const item of this.#outbox.values()) yield { op: 'put', item };
  }

  #see(id: string): void {
    this.#seenIds.add(id);
    if (this.#seenIds.size <= maxSeenIds) return;
    for (const oldest of this.#seenIds) {
      this.#seenIds.delete(oldest);
      break;
    }
  }
}

/** Keeps it all in memory: nothing outlives the process. An agent that is connected with the same store again goes on. */
export function createMemoryStore(): AgentStore {
  const contents = new JournalContents();
  let identity: StoredIdentity | null = null;
  return {
    open: async () => contents.read(identity),
    async saveIdentity(saved) {
      identity = saved;
    },
    async append(entries) {
      for (const entry of entries) contents.apply(entry);
    },
    close: async () => undefined,
  };
}
