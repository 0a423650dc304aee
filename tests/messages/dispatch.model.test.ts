import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Database } from '../../src/db/database.ts';
import type { Command, CommandLink, Confirmation, WrittenCommand } from '../../src/messages/command-link.ts';
import { isFinal, lifeOf, type Message, type MessagePriority, type MessageStatus } from '../../src/messages/message.ts';
import { SteppedClock } from '../agent-gateway/clocks.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { insertAgent } from '../fleet/agents.ts';
import { eventually } from '../support/eventually.ts';
import { type Fault, faultyDatabase } from './faulty-database.ts';
import { draft, everything, type MessagesStage, startMessages } from './stage.ts';

const agentCount = 2;
const ttlMs = 3_600_000;

/** Something that happens to agents, their links, the clocks or the database, while messages are on their way. */
type Step =
  | {
      readonly does: 'send';
      readonly agent: number;
      readonly priority: MessagePriority;
      readonly maxRetries: number;
    }
  | { readonly does: 'connect' | 'end' | 'stall' | 'hesitate'; readonly agent: number }
  | { readonly does: 'answer'; readonly agent: number; readonly confirmation: Confirmation; readonly isLast: boolean }
  | { readonly does: 'cancel' | 'runOut'; readonly message: number }
  | { readonly does: 'tick'; readonly jumpMs: number };

const agent = fc.nat(agentCount - 1);
const message = fc.nat(9);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      does: fc.constant('send' as const),
      agent,
      priority: fc.constantFrom<MessagePriority[]>('normal', 'normal', 'urgent'),
      maxRetries: fc.nat(2),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ does: fc.constantFrom('connect' as const, 'connect' as const, 'end' as const), agent }),
  },
  { weight: 1, arbitrary: fc.record({ does: fc.constantFrom('stall' as const, 'hesitate' as const), agent }) },
  {
    weight: 4,
    arbitrary: fc.record({
      does: fc.constant('answer' as const),
      agent,
      confirmation: fc.constantFrom<Confirmation[]>('read', 'read', 'unread', { refused: 'it will not' }),
      isLast: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ does: fc.constantFrom('cancel' as const, 'runOut' as const), message }) },
  {
    weight: 3,
    arbitrary: fc.record({ does: fc.constant('tick' as const), jumpMs: fc.constantFrom(0, 0, 3_600_000, -3_600_000) }),
  },
);
const faults = fc.array(fc.constantFrom<Fault[]>('none', 'none', 'none', 'before', 'after'), {
  minLength: 1,
  maxLength: 40,
});

const successors: Readonly<Record<MessageStatus, readonly MessageStatus[]>> = {
  pending: ['sent', 'expired', 'cancelled'],
  sent: ['pending', 'delivered', 'failed', 'expired', 'cancelled'],
  delivered: [],
  failed: [],
  expired: [],
  cancelled: [],
};

/** A clock that can be set, and a monotonic one that goes on by itself. */
class SettableClock extends SteppedClock {
  #shiftMs = 0;

  override now(): number {
    return super.now() + this.#shiftMs;
  }

  set(shiftMs: number): void {
    this.#shiftMs += shiftMs;
  }
}

/** The far side of one agent's links, over all of them. */
class Agent {
  readonly uid: string;
  /** Every frame that reached a socket: ids in order. */
  readonly written: string[] = [];
  readonly #world: World;
  #epoch: number;
  #link: CommandLink | null = null;
  #unanswered: { readonly id: string; readonly settle: (confirmation: Confirmation) => void }[] = [];
  #standing: Confirmation | null = null;
  #isStalled = false;
  #hesitates = false;

  constructor(uid: string, epoch: number, world: World) {
    this.uid = uid;
    this.#epoch = epoch;
    this.#world = world;
  }

  /** A newer link takes over; what the older one has under way may still be answered. */
  async connect(): Promise<void> {
    const epoch = ++this.#epoch;
    await this.#world.database.sql`update agents set epoch = ${epoch} where uid = ${this.uid}`;
    if (this.#link) this.#world.stage.dispatch.detach(this.#link);
    this.#isStalled = false;
    const isOpen = () => this.#epoch === epoch && !this.#isStalled;
    const link: CommandLink = {
      agentUid: this.uid,
      epoch,
      maxBatch: 3,
      get canWrite() {
        return isOpen();
      },
      write: (commands) => this.#write(commands, isOpen),
    };
    this.#link = link;
    this.#world.stage.dispatch.attach(link);
  }

  /** The link ends without a word about what it carried. */
  end(): void {
    if (this.#link) this.#world.stage.dispatch.detach(this.#link);
    this.#link = null;
    this.answerAll('unread');
  }

  /** The socket's buffer is full. */
  stall(): void {
    this.#isStalled = true;
  }

  /** The gateway sleeps between a claim and its writes, for longer than any message lives. */
  hesitate(): void {
    this.#hesitates = true;
  }

  answer(confirmation: Confirmation, isLast: boolean): void {
    const next = isLast ? this.#unanswered.pop() : this.#unanswered.shift();
    next?.settle(confirmation);
  }

  answerAll(confirmation: Confirmation): void {
    for (const { settle } of this.#unanswered.splice(0)) settle(confirmation);
  }

  /** From now on the agent reads everything. */
  calmDown(): void {
    this.#standing = 'read';
    this.#hesitates = false;
    this.answerAll('unread');
  }

  #write(commands: readonly Command[], isOpen: () => boolean): readonly (WrittenCommand | null)[] {
    if (this.#hesitates) {
      this.#world.monotonicMs += 2 * ttlMs;
      if (commands.some(({ expiresInMs }) => expiresInMs > 0))
        this.#world.breaches.push('time stands still for a claim');
    }
    this.#hesitates = false;
    return commands.map(({ id, expiresInMs }) => {
      if (!isOpen() || expiresInMs <= 0) return null;
      if (this.#world.late.has(id)) this.#world.breaches.push('a message is sent after its time');
      this.written.push(id);
      const standing = this.#standing;
      const confirmation = standing
        ? Promise.resolve(standing)
        : new Promise<Confirmation>((settle) => this.#unanswered.push({ id, settle }));
      return { frame: null, confirmation };
    });
  }
}

class World {
  readonly database: Database;
  readonly stage: MessagesStage;
  readonly clock = new SettableClock();
  readonly agents: Agent[] = [];
  /** Messages that ran out of time while they waited. */
  readonly late = new Set<string>();
  /** What links saw that must not be. */
  readonly breaches: string[] = [];
  monotonicMs = 0;
  readonly #accepted: Message[] = [];
  readonly #faults: Fault[];
  #statements = 0;

  constructor(database: Database, faults: readonly Fault[]) {
    this.database = database;
    this.#faults = [...faults];
    this.stage = startMessages(
      faultyDatabase(database, () => this.#faults[this.#statements++ % Math.max(1, this.#faults.length)] ?? 'none'),
      { clock: this.clock, monotonicMs: () => this.monotonicMs, ttlMs },
    );
  }

  async take(step: Step): Promise<void> {
    const { sql } = this.database;
    const one = 'agent' in step ? this.agents[step.agent] : undefined;
    const known = 'message' in step ? this.#accepted[step.message % Math.max(1, this.#accepted.length)] : undefined;
    switch (step.does) {
      case 'send':
        if (one) await this.#send(one, { ...draft, priority: step.priority, maxRetries: step.maxRetries });
        break;
      case 'connect':
        await one?.connect();
        break;
      case 'end':
      case 'stall':
      case 'hesitate':
        one?.[step.does]();
        break;
      case 'answer':
        one?.answer(step.confirmation, step.isLast);
        break;
      case 'cancel':
        if (known) await this.stage.messages.cancel(everything, known.id).catch(() => {});
        break;
      case 'runOut': {
        const rows = await sql<{ id: string }[]>`
          update message_queue set expires_at = now() - interval '2 minutes'
          where id = ${known?.id ?? null} and status = 'pending' returning id`;
        for (const { id } of rows) this.late.add(id);
        break;
      }
      case 'tick':
        this.clock.set(step.jumpMs);
        this.clock.advance(3_000);
    }
    await turn();
  }

  /** Faults end, agents come back and read. */
  async settle(): Promise<Message[]> {
    this.#faults.length = 0;
    for (const each of this.agents) {
      each.calmDown();
      await each.connect();
    }
    const all = async () => {
      const uids = this.agents.map(({ uid }) => uid);
      const range = { limit: 200, backwards: false, after: null, before: null };
      const pages = await this.stage.messages.pageByAgent(everything, uids, undefined, range);
      return [...pages.values()].flatMap(({ items }) => [...items]);
    };
    return eventually(async () => {
      this.clock.advance(3_000);
      const messages = await all();
      return messages.every(({ status }) => isFinal(status)) && messages;
    }, 30_000);
  }

  check(messages: readonly Message[]): void {
    expect(this.breaches).toEqual([]);
    const byId = new Map(messages.map((each) => [each.id, each]));
    for (const { id } of this.#accepted) expect(byId.has(id), 'nothing accepted is lost').toBe(true);
    for (const each of messages) {
      const statuses = lifeOf(each).map(({ status }) => status);
      for (const [index, status] of statuses.slice(1).entries())
        expect(successors[statuses[index] ?? 'delivered'], statuses.join(' → ')).toContain(status);
      expect(statuses.at(-1)).toBe(each.status);
      expect(each.failure === null, 'a reason for what went wrong').toBe(each.status === 'delivered');
    }
    for (const { written } of this.agents) {
      const first = [...new Set(written)].flatMap((id) => byId.get(id) ?? []);
      for (const priority of ['normal', 'urgent']) {
        const sequences = first.filter((each) => each.priority === priority).map(({ sequence }) => sequence);
        expect(sequences, 'order holds within a priority').toEqual(sequences.toSorted((a, b) => a - b));
      }
      for (const { id, maxRetries, attempts } of first) {
        const count = written.filter((each) => each === id).length;
        expect(count, 'every write is an attempt').toBeLessThanOrEqual(Math.min(attempts, maxRetries + 1));
      }
    }
    const delivered = messages.filter(({ status }) => status === 'delivered');
    const written = new Set(this.agents.flatMap((each) => each.written));
    for (const { id } of delivered) expect(written.has(id), 'nothing is delivered that was not written').toBe(true);
  }

  async #send(to: Agent, given: Parameters<MessagesStage['messages']['send']>[2]): Promise<void> {
    try {
      this.#accepted.push(await this.stage.messages.send(everything, to.uid, given));
    } catch {
      // Its sender does not know whether it was accepted. If it was, it must end like any other.
    }
  }
}

const engine = engines.at(-1) ?? 'embedded';

describe(`messages on their way on ${engine}, whatever fails`, () => {
  let open: EngineDatabase;

  beforeAll(async () => {
    open = await openEngine(engine);
  });
  afterAll(() => open.close());

  it('end in a final state for good, are sent in order and never after their time', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { minLength: 10, maxLength: 40, size: 'max' }),
        faults,
        async (steps, failing) => {
          const world = new World(open.database, failing);
          try {
            for (let index = 0; index < agentCount; index++) {
              const { uid } = await insertAgent(open.database, { epoch: 10 });
              world.agents.push(new Agent(uid, 10, world));
            }
            for (const each of steps) await world.take(each);
            world.check(await world.settle());
          } finally {
            await world.stage.stop();
          }
        },
      ),
      { numRuns: 30 },
    );
  }, 60_000);
});
