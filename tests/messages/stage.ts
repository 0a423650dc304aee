import type { Bus } from '../../src/bus/bus.ts';
import { createMemoryBus } from '../../src/bus/memory-bus.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import type { Database } from '../../src/db/database.ts';
import { createFleet } from '../../src/fleet/create-fleet.ts';
import type { Fleet } from '../../src/fleet/fleet.ts';
import { createMessages, type MessagesPart } from '../../src/messages/create-messages.ts';
import type { CommandLink } from '../../src/messages/dispatch.ts';
import type { Message, MessageDraft } from '../../src/messages/message.ts';

export const everything = { orgId: null };
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
  options: { queueSize?: number; retryAttempts?: number; ttlMs?: number; bus?: Bus; isDispatching?: boolean } = {},
): MessagesStage {
  const errors: string[] = [];
  const changes: Message[] = [];
  const logError = (error: unknown, context: string) => errors.push(`${context}: ${error}`);
  const bus = options.bus ?? createMemoryBus(logError);
  bus.subscribe('messages', (changed) => changes.push(...changed));
  const fleet = createFleet({ database, bus, defaultOrg: 'default-org' });
  const part = createMessages({
    onChanged: () => {},
    ...{ database, bus, fleet, logError },
    clock: hastyClock,
    random: () => 0,
    queueSize: options.queueSize ?? 10_000,
    retryAttempts: options.retryAttempts ?? 3,
    ttlMs: options.ttlMs ?? 3_600_000,
  });
  if (options.isDispatching !== false) part.dispatch.start();
  return { ...part, bus, fleet, changes, errors, stop: () => part.dispatch.stop() };
}

/** The far side of a link: what an agent would do with the frames. */
export interface FakeLink extends CommandLink {
  canWrite: boolean;
  /** Ids of what was written, in order. */
  readonly written: string[];
  readonly bodies: unknown[];
  /** How many barriers wait for an answer. */
  readonly asked: number;
  /** Answers every barrier that waits, and those to come until it is called with null. */
  answer(isRead: boolean | null): void;
  /** Called right after a message was sealed. */
  onSeal: () => void;
}

export function fakeLink(agentUid: string, epoch: number): FakeLink {
  const written: string[] = [];
  const bodies: unknown[] = [];
  let waiting: ((isRead: boolean) => void)[] = [];
  let standing: boolean | null = null;
  return {
    agentUid,
    epoch,
    canWrite: true,
    written,
    bodies,
    onSeal: () => {},
    get asked() {
      return waiting.length;
    },
    answer(isRead) {
      standing = isRead;
      if (isRead === null) return;
      for (const settle of waiting) settle(isRead);
      waiting = [];
    },
    seal(message) {
      this.onSeal();
      bodies.push(message.payload);
      return { frame: message.id, encryptedPayload: `sealed ${message.id}`, nonce: 'nonce', signature: 'signature' };
    },
    write(frame) {
      written.push(frame);
    },
    barrier: () => (standing === null ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(standing)),
  };
}
