/** How a wait on a journal is bounded. */
export interface WaitOptions {
  /** Real milliseconds, whatever clock the agent runs on; 5,000 where absent. */
  readonly timeoutMs?: number;
}

interface Waiter<Entry> {
  offer(entry: Entry): boolean;
}

/**
 * What happened, in order, with a way to wait for what is to come. Bounded: it keeps at least the last `limit` entries
 * and never more than twice as many.
 */
export class Journal<Entry> {
  readonly #limit: number;
  readonly #describe: string;
  readonly #entries: Entry[] = [];
  readonly #untaken: Entry[] = [];
  readonly #waiters = new Set<Waiter<Entry>>();
  #count = 0;

  /** `subject` names the entries in the error of a wait that times out. */
  constructor(subject: string, limit: number) {
    this.#describe = subject;
    this.#limit = limit;
  }

  /** Entries kept, oldest first. */
  get entries(): readonly Entry[] {
    return this.#entries;
  }

  /** Entries ever recorded, those no longer kept among them. */
  get count(): number {
    return this.#count;
  }

  record(entry: Entry): void {
    this.#count += 1;
    append(this.#entries, entry, this.#limit);
    for (const waiter of this.#waiters) if (waiter.offer(entry)) return;
    append(this.#untaken, entry, this.#limit);
  }

  /**
   * The first matching entry that no earlier `next` was given, whether it has come already or is still to come. So
   * two calls never answer with the same entry, and what arrives before the call is not missed. Rejects with an Error
   * when none comes in time.
   */
  next<Wanted extends Entry>(matches: (entry: Entry) => entry is Wanted, options?: WaitOptions): Promise<Wanted>;
  next(matches?: (entry: Entry) => boolean, options?: WaitOptions): Promise<Entry>;
  next(matches: (entry: Entry) => boolean = () => true, options: WaitOptions = {}): Promise<Entry> {
    const index = this.#untaken.findIndex(matches);
    const [waiting] = index < 0 ? [] : this.#untaken.splice(index, 1);
    if (waiting !== undefined) return Promise.resolve(waiting);
    const timeoutMs = options.timeoutMs ?? 5_000;
    return new Promise((resolve, reject) => {
      const waiter: Waiter<Entry> = {
        offer: (entry) => {
          if (!matches(entry)) return false;
          clearTimeout(timer);
          this.#waiters.delete(waiter);
          resolve(entry);
          return true;
        },
      };
      const timer = setTimeout(() => {
        this.#waiters.delete(waiter);
        reject(new Error(`no such ${this.#describe} within ${timeoutMs} ms; ${this.#count} came in all`));
      }, timeoutMs);
      this.#waiters.add(waiter);
    });
  }
}

function append<Entry>(entries: Entry[], entry: Entry, limit: number): void {
  entries.push(entry);
  if (entries.length > 2 * limit) entries.splice(0, entries.length - limit);
}
