import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Database } from '../../src/db/database.ts';
import { isFinal, type Message, type MessageStatus, statesSince } from '../../src/messages/message.ts';
import { createTransitions, type Settlement, type Transitions } from '../../src/messages/transitions.ts';
import { type EngineDatabase, engines, openEngine } from '../db/engines.ts';
import { insertAgent } from '../fleet/agents.ts';
import { draft, everything, type MessagesStage, startMessages } from './stage.ts';

/** What links do to a message; `epochsAgo` tells how old the link is. */
const linkDeeds = ['claim', 'confirm', 'refuse', 'giveUp', 'release'] as const;
type LinkDeed = (typeof linkDeeds)[number];

/** One step of the world: a link, an operator or time does something to the messages of one agent. */
type Step =
  | { readonly does: 'send'; readonly maxRetries: number }
  | { readonly does: 'connect' | 'recover' | 'expire' }
  | { readonly does: LinkDeed; readonly epochsAgo: number; readonly message: number }
  | { readonly does: 'cancel' | 'timePasses'; readonly message: number };

const message = fc.nat(5);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ does: fc.constant('send' as const), maxRetries: fc.nat(2) }),
  fc.record({ does: fc.constantFrom('connect' as const, 'recover' as const, 'expire' as const) }),
  {
    weight: 4,
    arbitrary: fc.record({ does: fc.constantFrom(...linkDeeds), epochsAgo: fc.constantFrom(0, 0, 0, 1, 2), message }),
  },
  fc.record({ does: fc.constantFrom('cancel' as const, 'timePasses' as const), message }),
);

/** Which status may follow which. */
const successors: Readonly<Record<MessageStatus, readonly MessageStatus[]>> = {
  pending: ['sent', 'expired', 'cancelled'],
  sent: ['pending', 'delivered', 'failed', 'expired', 'cancelled'],
  delivered: [],
  failed: [],
  expired: [],
  cancelled: [],
};

async function claimed(transitions: Transitions, agentUid: string, epoch: number, maxBatch: number) {
  const { claims } = await transitions.claim([{ agentUid, epoch, maxBatch }], 1024 * 1024);
  return claims.map(({ message }) => message);
}

function settlement(id: string, epoch: number, revision = 1): Settlement {
  return {
    ...{ id, epoch, revision, retryDelayMs: 0, refusal: 'it will not' },
    frame: { encryptedPayload: 'e', nonce: 'n', signature: 's' },
  };
}

/** One agent, its messages as they were last told, and the rules that every change must keep. */
class World {
  readonly #database: Database;
  readonly #stage: MessagesStage;
  readonly #transitions: ReturnType<typeof createTransitions>;
  readonly #agentUid: string;
  readonly #known = new Map<string, Message>();
  readonly #claimedBy = new Map<string, number>();
  readonly #late = new Set<string>();
  #epoch = 10;

  constructor(database: Database, stage: MessagesStage, agentUid: string) {
    this.#database = database;
    this.#stage = stage;
    this.#transitions = createTransitions(database.sql);
    this.#agentUid = agentUid;
  }

  async take(step: Step): Promise<void> {
    const epoch = 'epochsAgo' in step ? this.#epoch - step.epochsAgo : this.#epoch;
    for (const changed of await this.#change(step, epoch))
      if (changed.agentUid === this.#agentUid) this.#check(step, epoch, changed);
    const range = { limit: 100, backwards: false, after: null, before: null };
    const stored = await this.#stage.messages.pageByAgent(everything, [this.#agentUid], undefined, range);
    const told = [...this.#known.values()].map(({ id, status }) => ({ id, status }));
    expect(stored.get(this.#agentUid)?.items.map(({ id, status }) => ({ id, status }))).toEqual(told);
  }

  async #change(step: Step, epoch: number): Promise<readonly Message[]> {
    const { sql } = this.#database;
    switch (step.does) {
      case 'send': {
        const sent = await this.#stage.messages.send(everything, this.#agentUid, {
          ...draft,
          maxRetries: step.maxRetries,
        });
        this.#known.set(sent.id, sent);
        return [];
      }
      case 'connect':
        await sql`update agents set epoch = ${++this.#epoch} where uid = ${this.#agentUid}`;
        return [];
      case 'recover':
        return (await this.#transitions.recover([{ agentUid: this.#agentUid, epoch }], 0)).recovered;
      case 'expire':
        return this.#transitions.expire(1_000);
    }
    const id = [...this.#known.keys()][step.message % Math.max(1, this.#known.size)];
    if (id === undefined) return [];
    switch (step.does) {
      case 'claim':
        return claimed(this.#transitions, this.#agentUid, epoch, step.message + 1);
      case 'cancel':
        return [await this.#transitions.cancel(sql, everything, id)].flatMap((found) => found ?? []);
      case 'timePasses':
        await sql`update message_queue set expires_at = now() - interval '2 minutes' where id = ${id}`;
        this.#late.add(id);
        return [];
      default:
        return this.#transitions[step.does]([
          { ...settlement(id, epoch, this.#known.get(id)?.revision), retryDelayMs: 60_000 },
        ]);
    }
  }

  #check(step: Step, epoch: number, after: Message): void {
    const before = this.#known.get(after.id);
    if (!before) throw new Error('a message came from nowhere');
    expect(successors[before.status], `${step.does} of ${before.status}`).toContain(after.status);
    expect(after.revision, 'every change is counted').toBe(before.revision + 1);
    expect(statesSince(after, before.revision), 'and nothing but this one lies between').toEqual([after]);
    const recorded = after.history.slice(0, -1);
    expect(recorded, 'the history is never rewritten').toEqual(before.history.slice(-recorded.length || undefined));
    if (after.status === 'sent') {
      expect(epoch, 'only the owner claims').toBe(this.#epoch);
      expect(this.#late.has(after.id), 'nothing is sent after its time').toBe(false);
      expect(after.attempts).toBe(before.attempts + 1);
      expect(after.attempts).toBeLessThanOrEqual(after.maxRetries + 1);
      this.#claimedBy.set(after.id, epoch);
    }
    if (step.does === 'confirm' || step.does === 'refuse' || step.does === 'giveUp' || step.does === 'release')
      expect(this.#claimedBy.get(after.id), 'only who claimed it settles it').toBe(epoch);
    if (after.status === 'failed' && step.does !== 'refuse') expect(after.attempts).toBe(after.maxRetries + 1);
    expect(after.failure === null, 'a reason for what went wrong').toBe(
      !isFinal(after.status) || after.status === 'delivered',
    );
    this.#known.set(after.id, after);
  }
}

describe.each(engines)('the life of a message on %s', (engine) => {
  let open: EngineDatabase;
  let stage: MessagesStage;

  beforeAll(async () => {
    open = await openEngine(engine);
    stage = startMessages(open.database, { isDispatching: false });
  });
  afterAll(async () => {
    await stage.stop();
    await open.close();
  });

  it('never reverses a final state, never sends after expiry, never obeys an older link', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40, size: 'max' }), async (steps) => {
        const { uid } = await insertAgent(open.database, { epoch: 10 });
        const world = new World(open.database, stage, uid);
        for (const each of steps) await world.take(each);
      }),
      { numRuns: 40 },
    );
  });

  it('has one end, whoever comes at once', async () => {
    const transitions = createTransitions(open.database.sql);
    const { uid } = await insertAgent(open.database, { epoch: 10 });
    for (let round = 0; round < 30; round++) {
      const { id } = await stage.messages.send(everything, uid, { ...draft, maxRetries: 0 });
      const claims = await Promise.all(Array.from({ length: 3 }, () => claimed(transitions, uid, 10, 1)));
      expect(claims.flat()).toHaveLength(1);
      const settlements = [settlement(id, 10)];
      const ends = await Promise.all([
        transitions.confirm(settlements),
        transitions.giveUp(settlements),
        transitions.cancel(open.database.sql, everything, id).then((found) => (found ? [found] : [])),
        transitions.recover([{ agentUid: uid, epoch: 11 }], 0).then(({ recovered }) => recovered),
      ]);
      expect(ends.flat()).toHaveLength(1);
      expect(await stage.messages.find(everything, id)).toEqual(ends.flat()[0]);
    }
  });
});
