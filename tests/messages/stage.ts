import type { Bus } from '../../src/bus/bus.ts';
import { createMemoryBus } from '../../src/bus/memory-bus.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import type { Database } from '../../src/db/database.ts';
import { createFleet } from '../../src/fleet/create-fleet.ts';
import type { Fleet } from '../../src/fleet/fleet.ts';
import type { CommandLink, Confirmation } from '../../src/messages/command-link.ts';
import { createMessages, type MessagesPart } from '../../src/messages/create-messages.ts';
import type { Message, MessageDraft } from '../../src/messages/message.ts';
import { changerOf } from '../support/changer.ts';

export const everything = changerOf(null);
export const draft: MessageDraft = { kind: 'policies', type: 'request', payload: { rule: 1 } };

/** The messages part of one gateway, with every change that it published. */
export interface MessagesStage extends MessagesPart {
  readonly bus: Bus;
  readonly fleet: Fleet;
  readonly changes: Message[];
  readonly errors: string[];
  stop(): Promise<void>;
}

/** The system's clock with delays a twentieth as long. */
const hastyClock: Clock = {
  now: systemClock.now,
  after: (delayMs, task) => systemClock.after(delayMs / 20, task),
  every: (intervalMs, task) => systemClock.every(intervalMs / 20, task),
};

export function startMessages(
  database: Database,
  options: {
    queueSize?: number;
    retryAttempts?: number;
    ttlMs?: number;
    retentionMs?: number;
    bus?: Bus;
    isDispatching?: boolean;
    monotonicMs?: () => number;
    clock?: Clock;
  } = {},
): MessagesStage {
  const errors: string[] = [];
  const changes: Message[] = [];
  const logError = (error: unknown, context: string) => errors.push(`${context}: ${error}`);
  const bus = options.bus ?? createMemoryBus(logError);
  bus.subscribe('messages', (changed) => changes.push(...changed));
  const fleet = createFleet({ database, bus, clock: hastyClock, logError, defaultOrg: 'default-org' });
  const part = createMessages({
    onChanged: () => {},
    ...{ database, bus, logError },
    defaultOrg: 'default-org',
    clock: options.clock ?? hastyClock,
    monotonicMs: options.monotonicMs ?? (() => performance.now()),
    random: () => 0,
    queueSize: options.queueSize ?? 10_000,
    retryAttempts: options.retryAttempts ?? 3,
    ttlMs: options.ttlMs ?? 3_600_000,
    retentionMs: options.retentionMs ?? 3_600_000,
  });
  if (options.isDispatching !== false) {
    part.dispatch.start();
    part.upkeep.start();
  }
  const stop = async () => {
    await part.upkeep.stop();
    await part.dispatch.stop();
  };
  return { ...part, bus, fleet, changes, errors, stop };
}

/** The far side of a link: what an agent would do with the frames. */
export interface FakeLink extends CommandLink {
  canWrite: boolean;
  /** Ids of what was written, in order. */
  readonly written: string[];
  readonly bodies: unknown[];
  /** How many batches wait for an answer. */
  readonly asked: number;
  /** Answers every batch that waits, and those to come until it is called with null. */
  answer(isRead: boolean | null): void;
  /** Answers for one message alone. */
  confirm(id: string, confirmation: Confirmation): void;
  /** Called when a batch has come, before it is written. */
  onWrite: () => void;
}

export function fakeLink(agentUid: string, epoch: number): FakeLink {
  const written: string[] = [];
  const bodies: unknown[] = [];
  let batches: Map<string, (confirmation: Confirmation) => void>[] = [];
  let standing: boolean | null = null;
  return {
    agentUid,
    epoch,
    canWrite: true,
    maxBatch: 10,
    written,
    bodies,
    onWrite: () => {},
    get asked() {
      return batches.length;
    },
    answer(isRead) {
      standing = isRead;
      if (isRead === null) return;
      for (const settle of batches.flatMap((batch) => [...batch.values()])) settle(isRead ? 'read' : 'unread');
      batches = [];
    },
    confirm(id, confirmation) {
      for (const batch of batches) batch.get(id)?.(confirmation);
    },
    write(commands) {
      this.onWrite();
      const batch = new Map<string, (confirmation: Confirmation) => void>();
      const sent = commands.map(({ id, payload, expiresInMs }) => {
        if (!this.canWrite || expiresInMs <= 0) return null;
        written.push(id);
        bodies.push(payload);
        const confirmation =
          standing === null
            ? new Promise<Confirmation>((resolve) => batch.set(id, resolve))
            : Promise.resolve<Confirmation>(standing ? 'read' : 'unread');
        return { frame: { encryptedPayload: `sealed ${id}`, nonce: 'nonce', signature: 'signature' }, confirmation };
      });
      if (batch.size > 0) batches.push(batch);
      return sent;
    },
  };
}
