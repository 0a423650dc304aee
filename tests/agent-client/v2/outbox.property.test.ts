import { mkdtemp, readFile, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createFileStore } from '../../../src/agent-client/v2/node/index.ts';
import { Outbox } from '../../../src/agent-client/v2/outbox.ts';
import type { AgentStore, OutboxItem, Priority } from '../../../src/agent-client/v2/store.ts';

const limits = { maxItems: 12, maxBytes: 3_000 };

type Step =
  | { readonly do: 'report'; readonly bytes: number; readonly priority: Priority }
  | { readonly do: 'send'; readonly count: number }
  | { readonly do: 'acknowledge' | 'refuse'; readonly pick: number }
  | { readonly do: 'relink' }
  /** The process ends, and of what it wrote since all was known to last, so much is there. */
  | { readonly do: 'crash'; readonly share: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('report' as const),
      bytes: fc.nat(700),
      priority: fc.constantFrom<Priority>('normal', 'high'),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('send' as const), count: fc.nat(5) }) },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constantFrom('acknowledge' as const, 'refuse' as const), pick: fc.nat() }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'relink' as const }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('crash' as const), share: fc.double({ min: 0, max: 1, noNaN: true }) }),
  },
);

/** An outbox over a file store, and what must be true of it. */
class Run {
  readonly #directory: string;
  #store: AgentStore | null = null;
  #outbox: Outbox | null = null;
  #reports = 0;
  /** Sent over the present link and not answered, in order. */
  #sent: string[] = [];
  /** Stored for certain, and not settled: none of them may be lost. */
  readonly #owed = new Map<string, Priority>();
  /** Settled, and for certain so: none of them may come back. */
  readonly #settled = new Set<string>();
  /** Of the journal, up to where everything lasts. */
  #lasting = 0;
  /** Settled since then. */
  #settledSince: string[] = [];

  constructor(directory: string) {
    this.#directory = directory;
  }

  async open(): Promise<void> {
    this.#store = createFileStore(this.#directory);
    const stored = await this.#store.open();
    this.#outbox = new Outbox(this.#store, limits, {
      onQueued: () => undefined,
      onRefused: () => undefined,
      onStoreFailure: (error) => expect.unreachable(String(error)),
    });
    const ids = stored.outbox.map(({ id }) => id);
    expect(ids).toEqual(expect.arrayContaining([...this.#owed.keys()]));
    expect(ids.filter((id) => this.#settled.has(id))).toEqual([]);
    // What was settled when the process ended may be there, and is then owed once more.
    for (const { id, priority } of stored.outbox) this.#owed.set(id, priority);
    this.#outbox.load(stored.outbox);
    this.#sent = [];
    await this.#settleDown();
  }

  async close(): Promise<void> {
    await this.#store?.close();
  }

  async take(step: Step): Promise<void> {
    switch (step.do) {
      case 'report':
        return this.#report(step.bytes, step.priority);
      case 'send':
        for (let count = 0; count < step.count; count++) this.#send();
        return;
      case 'acknowledge':
      case 'refuse':
        return this.#settle(step.pick);
      case 'relink':
        this.#current.rewind();
        this.#sent = [];
        return;
      case 'crash':
        return this.#crash(step.share);
    }
  }

  /** Everything that is owed is sent over the next link, each once and in its order. */
  expectOwedIsSent(): void {
    this.#current.rewind();
    this.#sent = [];
    while (this.#current.peek()) this.#send();
    expect([...this.#sent].sort()).toEqual([...this.#owed.keys()].sort());
    for (const priority of ['high', 'normal'] as const) {
      const numbers = this.#sent.filter((id) => this.#owed.get(id) === priority).map(Number);
      expect(numbers).toEqual([...numbers].sort((left, right) => left - right));
    }
  }

  get #current(): Outbox {
    if (!this.#outbox) throw new Error('not open');
    return this.#outbox;
  }

  async #report(bytes: number, priority: Priority): Promise<void> {
    const id = String(++this.#reports);
    const address = { id, type: 'event', channel: 'agent.logs', replyTo: null, traceparent: null } as const;
    const item: OutboxItem = { ...address, payloadText: JSON.stringify('x'.repeat(bytes)), timestampMs: 1, priority };
    const before = this.#current.items;
    const refused = this.#current.report(item).then(
      () => null,
      (error: { code: string }) => error.code,
    );
    expect(this.#current.items).toBeLessThanOrEqual(limits.maxItems);
    expect(this.#current.bytes).toBeLessThanOrEqual(limits.maxBytes);
    if (this.#current.items === before) {
      expect(await refused).toBe('OUTBOX_FULL');
      return;
    }
    await this.#settleDown();
    this.#owed.set(id, priority);
  }

  #send(): void {
    const item = this.#current.peek();
    if (!item) return;
    this.#current.take();
    expect(this.#sent).not.toContain(item.id);
    this.#sent.push(item.id);
  }

  #settle(pick: number): void {
    const id = this.#sent[pick % (this.#sent.length || 1)];
    if (id === undefined) return;
    this.#sent = this.#sent.filter((sent) => sent !== id);
    this.#current.acknowledge([id, 'never sent']);
    this.#owed.delete(id);
    this.#settledSince.push(id);
  }

  /** Waits until what was written lasts, and notes it. */
  async #settleDown(): Promise<void> {
    await this.#store?.append([]);
    this.#lasting = (await readFile(this.#journal)).length;
    for (const id of this.#settledSince.splice(0)) this.#settled.add(id);
  }

  /** What the process had been told that it lasts, lasts; of the rest any part may be there, cut at any byte. */
  async #crash(share: number): Promise<void> {
    await this.#store?.close();
    const { length } = await readFile(this.#journal);
    await truncate(this.#journal, this.#lasting + Math.floor((length - this.#lasting) * share));
    this.#settledSince = [];
    await this.open();
  }

  get #journal(): string {
    return join(this.#directory, 'journal');
  }
}

describe('the outbox, over a store of files', () => {
  it('loses nothing that was stored, keeps nothing that was settled, and stays within its bounds, wherever it is cut off', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
        const directory = await mkdtemp(join(tmpdir(), 'outbox-'));
        const run = new Run(directory);
        try {
          await run.open();
          for (const next of steps) await run.take(next);
          run.expectOwedIsSent();
        } finally {
          await run.close();
          await rm(directory, { recursive: true, force: true });
        }
      }),
      { numRuns: 60 },
    );
  }, 60_000);
});
