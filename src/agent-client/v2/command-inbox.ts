import { type CommandKind, parseCommandChannel } from '../../agent-gateway/wire/channels.ts';
import { isTooDeep } from '../../agent-gateway/wire/text.ts';
import type { V2Message } from '../../agent-gateway/wire/v2-message.ts';
import { encodeErrorNotice, sessionChannel } from '../../agent-gateway/wire/v2-session-channel.ts';
import type { V2Clock } from './clock.ts';
import type { V2Link } from './link.ts';
import type { Outbox } from './outbox.ts';
import { type AgentStore, type JournalEntry, maxSeenIds, type OutboxItem, type TakenCommand } from './store.ts';

/** A command as its handler gets it. */
export interface AgentCommand {
  readonly id: string;
  readonly kind: CommandKind;
  readonly payload: unknown;
  /** The payload exactly as it was written: numbers in it have all their digits. */
  readonly payloadText: string;
  /** W3C Trace Context of whoever sent it. */
  readonly traceparent: string | null;
}

/** Carries a command out. What it gives is the answer; what it throws is told as COMMAND_FAILED, with its message. */
export type CommandHandler = (command: AgentCommand) => unknown;

export interface InboxOptions {
  readonly store: AgentStore;
  readonly outbox: Outbox;
  readonly clock: V2Clock;
  readonly newId: () => string;
  /** Most commands that wait, or whose answers do. */
  readonly maxCommands: number;
  readonly maxReplyBytes: number;
  readonly onStoreFailure: (error: unknown) => void;
}

interface WaitingCommand {
  readonly command: TakenCommand;
  /** On the monotonic clock; null where it never expires. */
  readonly deadlineMs: number | null;
}

/** How long to wait before the store is tried again. */
const storeRetryMs = 1_000;
/** A reason is for people. */
const maxReasonLength = 500;

/**
 * Commands, from their receipt to their answer. One is written down before it is acknowledged, and the handler is given each id
 * once: a command that was begun when the process ended is not begun again, but answered with COMMAND_INTERRUPTED.
 */
export class CommandInbox {
  readonly counts = { taken: 0, repeated: 0, expired: 0, failed: 0 };
  readonly #options: InboxOptions;
  readonly #seenIds = new Set<string>();
  /** Being written down; their repeats are acknowledged when they are. */
  readonly #taking = new Map<string, Promise<void>>();
  readonly #waiting: WaitingCommand[] = [];
  #handler: CommandHandler | null = null;
  #isBusy = false;
  #isClosed = false;
  #wake: () => void = () => undefined;

  constructor(options: InboxOptions) {
    this.#options = options;
  }

  /** Takes in what an earlier process left. */
  load(commands: readonly TakenCommand[], seenIds: readonly string[]): void {
    for (const id of seenIds) this.#seenIds.add(id);
    for (const command of commands) this.#waiting.push({ command, deadlineMs: this.#deadlineOf(command) });
  }

  /** Commands wait until there is a handler. They are carried out one after the other. */
  setHandler(handler: CommandHandler): void {
    this.#handler = handler;
    this.#work();
  }

  take(link: V2Link, message: V2Message): void {
    const { id, headers } = message;
    const channel = message.channel.startsWith('backend.') ? parseCommandChannel(message.channel) : null;
    if (!channel) {
      refuse(link, id, 'CHANNEL_UNKNOWN', 'this agent has no such channel', false);
      return;
    }
    const underWay = this.#taking.get(id);
    if (underWay || this.#seenIds.has(id)) {
      this.counts.repeated++;
      void Promise.resolve(underWay).then(() => this.#seenIds.has(id) && link.acknowledge(id));
      return;
    }
    if (this.#waiting.length + this.#taking.size + this.#options.outbox.replies >= this.#options.maxCommands) {
      refuse(link, id, 'QUEUE_FULL', 'too many commands wait at this agent', true);
      return;
    }
    const command: TakenCommand = {
      ...{ id, kind: channel.kind, payloadText: message.payloadText, takenAtMs: this.#options.clock.nowMs() },
      ...{ expiresInMs: headers.expiresInMs, traceparent: headers.traceparent, isBegun: false },
    };
    this.#taking.set(id, this.#takeCharge(link, command));
  }

  /** The handler that is at work is not waited for; what it gives is not kept. */
  close(): void {
    this.#isClosed = true;
    this.#wake();
  }

  async #takeCharge(link: V2Link, command: TakenCommand): Promise<void> {
    const { clock, store, onStoreFailure } = this.#options;
    const { id, expiresInMs } = command;
    const deadlineMs = expiresInMs === null ? null : clock.monotonicMs() + expiresInMs;
    try {
      await store.append([{ op: 'take', command }]);
      this.#see(id);
      this.counts.taken++;
      link.acknowledge(id);
      this.#waiting.push({ command, deadlineMs });
    } catch (error) {
      onStoreFailure(error);
      refuse(link, id, 'UNAVAILABLE', 'the agent cannot write it down', true);
    } finally {
      this.#taking.delete(id);
    }
    this.#work();
  }

  #work(): void {
    if (!this.#isBusy) void this.#workOff();
  }

  async #workOff(): Promise<void> {
    this.#isBusy = true;
    for (let [next] = this.#waiting; next && this.#handler && !this.#isClosed; [next] = this.#waiting) {
      await this.#carryOut(next, this.#handler);
      this.#waiting.shift();
    }
    this.#isBusy = false;
  }

  async #carryOut({ command, deadlineMs }: WaitingCommand, handler: CommandHandler): Promise<void> {
    const { clock, store } = this.#options;
    if (command.isBegun)
      return this.#fail(command, 'COMMAND_INTERRUPTED', 'the agent stopped while it carried this out');
    if (deadlineMs !== null && clock.monotonicMs() >= deadlineMs) {
      this.counts.expired++;
      return this.#fail(command, 'COMMAND_EXPIRED', 'its time was up before it could be begun');
    }
    await this.#untilStored(() => store.append([{ op: 'begin', id: command.id }]));
    if (this.#isClosed) return;
    const { id, kind, payloadText, traceparent } = command;
    let answer: string;
    try {
      const result = await handler({ id, kind, payloadText, traceparent, payload: JSON.parse(payloadText) });
      answer = this.#answerText(result);
    } catch (error) {
      this.counts.failed++;
      return this.#fail(command, 'COMMAND_FAILED', error instanceof Error ? error.message : String(error));
    }
    await this.#reply(command, 'response', answer);
  }

  /** Throws where no gateway could take it. */
  #answerText(result: unknown): string {
    const text = JSON.stringify(result) ?? 'null';
    const { maxReplyBytes } = this.#options;
    // Each UTF-16 code unit has three bytes at most.
    if (text.length * 3 > maxReplyBytes && new TextEncoder().encode(text).length > maxReplyBytes)
      throw new Error(`the answer has more than ${maxReplyBytes} bytes`);
    if (isTooDeep(text)) throw new Error('the answer nests too deeply');
    return text;
  }

  #fail(command: TakenCommand, code: string, reason: string): Promise<void> {
    const message = reason.slice(0, maxReasonLength);
    const notice = encodeErrorNotice({ code, message, retryable: false, retryAfterMs: null });
    return this.#reply(command, 'error', JSON.stringify(notice));
  }

  async #reply(command: TakenCommand, type: 'response' | 'error', payloadText: string): Promise<void> {
    const { clock, newId, outbox } = this.#options;
    const { id: replyTo, traceparent } = command;
    const item: OutboxItem = {
      ...{ id: newId(), type, channel: replyChannel, payloadText, timestampMs: clock.nowMs() },
      ...{ priority: 'high' as const, replyTo, traceparent },
    };
    const done: JournalEntry = { op: 'done', id: replyTo };
    await this.#untilStored(() => outbox.reply(item, [done]));
  }

  /** Nothing goes on without the store. */
  async #untilStored(write: () => Promise<void>): Promise<void> {
    while (!this.#isClosed) {
      try {
        return await write();
      } catch (error) {
        this.#options.onStoreFailure(error);
        await new Promise<void>((resolve) => {
          const cancel = this.#options.clock.schedule(storeRetryMs, resolve);
          this.#wake = () => {
            cancel();
            resolve();
          };
        });
      }
    }
  }

  #see(id: string): void {
    this.#seenIds.add(id);
    if (this.#seenIds.size <= maxSeenIds) return;
    const [oldest] = this.#seenIds;
    if (oldest !== undefined) this.#seenIds.delete(oldest);
  }

  /** The monotonic clock began anew with the process, so the wall clock decides; where it went back, the time is up. */
  #deadlineOf({ expiresInMs, takenAtMs }: TakenCommand): number | null {
    if (expiresInMs === null) return null;
    const { clock } = this.#options;
    const elapsedMs = clock.nowMs() - takenAtMs;
    return clock.monotonicMs() + (elapsedMs < 0 ? 0 : expiresInMs - elapsedMs);
  }
}

/** All answers go out here: on the channel of its kind the answer to a command about threats would be shown as a threat. */
const replyChannel = 'agent.status';

function refuse(link: V2Link, id: string, code: string, message: string, retryable: boolean): void {
  const payload = encodeErrorNotice({ code, message, retryable, retryAfterMs: null });
  link.say({ type: 'error', channel: sessionChannel, headers: { ackFor: [id] }, payload });
}
