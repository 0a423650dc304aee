import { utf8 } from '../../agent-gateway/wire/bytes.ts';
import { encodeMessage, type V2OutgoingMessage } from '../../agent-gateway/wire/v2-message.ts';
import { AgentError } from './agent-error.ts';
import type { AgentStore, JournalEntry, OutboxItem, Priority } from './store.ts';

export interface OutboxLimits {
  readonly maxItems: number;
  /** Of the messages as they are written to records. */
  readonly maxBytes: number;
}

/** The last tenth of the room is for what is urgent. */
const normalShare = 0.9;

/** `storing` until it outlives the process · `queued` to be sent · `sent` · `held` until its time or the next link. */
type EntryState = 'storing' | 'queued' | 'sent' | 'held';

interface Entry {
  readonly item: OutboxItem;
  readonly bytes: number;
  state: EntryState;
  readonly settle: (refusal: AgentError | null) => void;
}

/** What an outbox tells its owner. */
export interface OutboxEvents {
  /** Something can be sent. */
  readonly onQueued: () => void;
  /** An item leaves for good, and nobody who reported it is there to be told. */
  readonly onRefused: (id: string, refusal: AgentError) => void;
  readonly onStoreFailure: (error: unknown) => void;
}

/**
 * What waits for the gateway's acknowledgement, within bounds. An item is stored before it is sent, and leaves when it was
 * acknowledged or refused for good. Each link sends all of it, in order, the urgent first.
 */
export class Outbox {
  readonly #store: Pick<AgentStore, 'append'>;
  readonly #limits: OutboxLimits;
  readonly #events: OutboxEvents;
  readonly #entries = new Map<string, Entry>();
  readonly #queues: Record<Priority, Entry[]> = { high: [], normal: [] };
  #bytes = 0;
  #queuedItems = 0;
  #queuedBytes = 0;
  #isClosed = false;

  constructor(store: Pick<AgentStore, 'append'>, limits: OutboxLimits, events: OutboxEvents) {
    this.#store = store;
    this.#limits = limits;
    this.#events = events;
  }

  /** Takes in what an earlier process left. */
  load(items: readonly OutboxItem[]): void {
    for (const item of items) this.#enqueue(this.#addUnawaited(item));
  }

  get items(): number {
    return this.#entries.size;
  }

  has(id: string): boolean {
    return this.#entries.has(id);
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** What waits to be sent over the present link. */
  get queued(): { readonly items: number; readonly bytes: number } {
    return { items: this.#queuedItems, bytes: this.#queuedBytes };
  }

  /** Answers of commands that wait here. */
  get replies(): number {
    let count = 0;
    for (const { item } of this.#entries.values()) if (item.replyTo !== null) count++;
    return count;
  }

  /**
   * Stores a report and has it sent. Resolves when the gateway has acknowledged it. Rejects with an AgentError: at once where
   * there is no room or the id is taken, `STORE_FAILED`, later the gateway's refusal or `AGENT_CLOSED`.
   */
  async report(item: OutboxItem): Promise<void> {
    if (this.#isClosed) throw new AgentError('AGENT_CLOSED', 'the agent is closed');
    if (this.#entries.has(item.id)) throw new AgentError('REPORT_INVALID', `the id ${item.id} waits in the outbox`);
    const { length: bytes } = messageBytes(item);
    this.#requireRoom(item.priority, bytes);
    let settle: Entry['settle'] = () => undefined;
    const settled = new Promise<void>((resolve, reject) => {
      settle = (refusal) => (refusal ? reject(refusal) : resolve());
    });
    const entry = this.#add(item, bytes, settle);
    try {
      await this.#store.append([{ op: 'put', item }]);
    } catch (error) {
      this.#remove(entry);
      throw new AgentError('STORE_FAILED', 'the report could not be stored', { cause: error });
    }
    this.#enqueue(entry);
    await settled;
  }

  /** Stores the answer of a command together with what else its end comes to. Bounded by the commands, not by the limits here. */
  async reply(item: OutboxItem, entries: readonly JournalEntry[]): Promise<void> {
    await this.#store.append([...entries, { op: 'put', item }]);
    if (this.#isClosed) return;
    this.#enqueue(this.#addUnawaited(item));
  }

  /** A new link: everything is to be sent again. */
  rewind(): void {
    this.#queues.high.length = 0;
    this.#queues.normal.length = 0;
    this.#queuedItems = 0;
    this.#queuedBytes = 0;
    for (const entry of this.#entries.values()) if (entry.state !== 'storing') this.#enqueue(entry);
  }

  /** What is to be sent next, without taking it; null where there is nothing. */
  peek(): OutboxItem | null {
    return (this.#first('high') ?? this.#first('normal'))?.item ?? null;
  }

  /** Takes what `peek` gave: it counts as sent. */
  take(): void {
    const entry = this.#first('high') ?? this.#first('normal');
    if (!entry) return;
    this.#unqueue(entry);
    entry.state = 'sent';
    this.#queues[entry.item.priority].shift();
  }

  /** The gateway has these. Ids that are not here have been settled before. */
  acknowledge(ids: readonly string[]): void {
    this.#settle(ids, null);
  }

  /** These leave for good, and whoever reported them is told why. */
  refuse(ids: readonly string[], refusal: AgentError): void {
    this.#settle(ids, refusal);
  }

  /** Not now: waits for `release`, or the next link. */
  hold(id: string): void {
    const entry = this.#entries.get(id);
    if (entry?.state !== 'sent') return;
    entry.state = 'held';
  }

  release(id: string): void {
    const entry = this.#entries.get(id);
    if (entry?.state === 'held') this.#enqueue(entry);
  }

  /** Tells whoever waits that nothing is sent any more. What is stored stays stored. */
  close(): void {
    this.#isClosed = true;
    const closed = new AgentError('AGENT_CLOSED', 'closed before the gateway acknowledged it');
    for (const entry of [...this.#entries.values()]) {
      if (entry.state === 'storing') continue;
      this.#remove(entry);
      entry.settle(closed);
    }
  }

  #requireRoom(priority: Priority, bytes: number): void {
    const share = priority === 'high' ? 1 : normalShare;
    const { maxItems, maxBytes } = this.#limits;
    if (this.#entries.size + 1 > maxItems * share || this.#bytes + bytes > maxBytes * share)
      throw new AgentError('OUTBOX_FULL', `${this.#entries.size} messages of ${this.#bytes} bytes wait already`);
  }

  /** Nobody waits for it: it is an answer, or an earlier process reported it. */
  #addUnawaited(item: OutboxItem): Entry {
    return this.#add(item, messageBytes(item).length, (refusal) => {
      if (refusal && refusal.code !== 'AGENT_CLOSED') this.#events.onRefused(item.id, refusal);
    });
  }

  #add(item: OutboxItem, bytes: number, settle: Entry['settle']): Entry {
    const entry: Entry = { item, bytes, state: 'storing', settle };
    this.#entries.set(item.id, entry);
    this.#bytes += entry.bytes;
    return entry;
  }

  #remove(entry: Entry): void {
    if (!this.#entries.delete(entry.item.id)) return;
    this.#bytes -= entry.bytes;
    this.#unqueue(entry);
  }

  #enqueue(entry: Entry): void {
    if (this.#isClosed) {
      this.#remove(entry);
      entry.settle(new AgentError('AGENT_CLOSED', 'closed before the gateway acknowledged it'));
      return;
    }
    entry.state = 'queued';
    this.#queues[entry.item.priority].push(entry);
    this.#queuedItems++;
    this.#queuedBytes += entry.bytes;
    this.#events.onQueued();
  }

  #unqueue(entry: Entry): void {
    if (entry.state !== 'queued') return;
    this.#queuedItems--;
    this.#queuedBytes -= entry.bytes;
  }

  /** Those that were settled while they waited are dropped on the way. */
  #first(priority: Priority): Entry | undefined {
    const queue = this.#queues[priority];
    while (queue[0] && this.#entries.get(queue[0].item.id) !== queue[0]) queue.shift();
    return queue[0];
  }

  #settle(ids: readonly string[], refusal: AgentError | null): void {
    const settled = ids.flatMap((id) => this.#entries.get(id) ?? []).filter(({ state }) => state !== 'storing');
    if (settled.length === 0) return;
    for (const entry of settled) this.#remove(entry);
    // Not waited for: an item whose end is forgotten is sent once more, and acknowledged once more.
    const dropped: JournalEntry = { op: 'drop', ids: settled.map(({ item }) => item.id) };
    this.#store.append([dropped]).catch(this.#events.onStoreFailure);
    for (const entry of settled) entry.settle(refusal);
  }
}

/** One element of a record's array. */
export function messageBytes(item: OutboxItem): Uint8Array {
  return utf8(encodeMessage(outgoing(item)));
}

function outgoing({
  id,
  type,
  channel,
  payloadText,
  timestampMs,
  replyTo,
  traceparent,
}: OutboxItem): V2OutgoingMessage {
  return { id, type, channel, payloadText, timestampMs, headers: { replyTo, traceparent } };
}
