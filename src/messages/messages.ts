import type { Scope } from '../access/scope.ts';
import type { Changer } from '../audit/actor.ts';
import type { AgentFilter } from '../fleet/agent.ts';
import type { KeysetRange, Page, PageRequest } from '../paging.ts';
import type { Broadcast, BroadcastPace, BroadcastProgress, Message, MessageDraft, MessageStatus } from './message.ts';

/** Whose messages to follow; one of them. */
export type MessageSubject =
  | { readonly messageId: string }
  | { readonly broadcastId: string }
  | { readonly agentUid: string };

/** How one message of a broadcast stands. */
export interface BroadcastOutcome {
  readonly agentName: string;
  readonly status: MessageStatus;
}

/** What is sent to agents, as consumers send and follow it. Every change is put on record in the statement that makes it. */
export interface Messages {
  /**
   * Accepts a message; it is durable when the promise resolves. A message that can never reach its agent (a handoff agent's)
   * is accepted and has failed. The same idempotency key again gives the same message and sends nothing.
   * Throws AGENT_NOT_FOUND, AGENT_REVOKED, QUEUE_FULL, CHANNEL_CLOSED, IDEMPOTENCY_CONFLICT, BAD_USER_INPUT.
   */
  send(by: Changer, agentRef: string, draft: MessageDraft): Promise<Message>;

  /**
   * Accepts a message for every agent that matches; all approved agents of the scope where the filter is empty.
   * Throws IDEMPOTENCY_CONFLICT, BAD_USER_INPUT, and PAYLOAD_TOO_LARGE where the payload times the agents is too much.
   */
  broadcast(by: Changer, draft: MessageDraft, filter: AgentFilter, pace?: BroadcastPace): Promise<Broadcast>;

  /**
   * Takes back what no agent has confirmed, a batch after the other; gives the broadcast as it stands now, or as it ended where
   * it was cancelled or aborted before. Throws NOT_FOUND, MESSAGE_FINAL.
   */
  cancelBroadcast(by: Changer, broadcastId: string): Promise<Broadcast>;

  /** Takes back what the agent has not confirmed. Throws MESSAGE_NOT_FOUND, MESSAGE_FINAL. */
  cancel(by: Changer, messageId: string): Promise<Message>;

  /** The message, or null. `messageId` may be any text. */
  find(scope: Scope, messageId: string): Promise<Message | null>;

  /** The broadcast, or null. */
  findBroadcast(scope: Scope, broadcastId: string): Promise<Broadcast | null>;

  /** Those of these broadcasts that are the scope's: one of every organisation is nobody's of one, whatever it sent there. */
  findBroadcasts(scope: Scope, broadcastIds: readonly string[]): Promise<readonly Broadcast[]>;

  /** How far each of these broadcasts has come. */
  progress(scope: Scope, broadcastIds: readonly string[]): Promise<ReadonlyMap<string, BroadcastProgress>>;

  /** A broadcast's messages, oldest first. */
  pageOfBroadcast(
    scope: Scope,
    broadcastId: string,
    statuses: readonly MessageStatus[] | undefined,
    request: PageRequest,
  ): Promise<Page<Message>>;

  countOfBroadcast(scope: Scope, broadcastId: string, statuses: readonly MessageStatus[] | undefined): Promise<number>;

  /** How each of a broadcast's messages stands, in no order. */
  outcomesOfBroadcast(scope: Scope, broadcastId: string): Promise<readonly BroadcastOutcome[]>;

  /** How many of a broadcast's messages are queued for agents that are not connected. */
  countUnreachable(scope: Scope, broadcastId: string): Promise<number>;

  /** The same page of the messages of each of many agents, oldest first, in one statement. */
  pageByAgent(
    scope: Scope,
    agentUids: readonly string[],
    statuses: readonly MessageStatus[] | undefined,
    range: KeysetRange<number>,
  ): Promise<ReadonlyMap<string, Page<Message>>>;

  countByAgent(
    scope: Scope,
    agentUids: readonly string[],
    statuses: readonly MessageStatus[] | undefined,
  ): Promise<ReadonlyMap<string, number>>;

  /** Place in the lists above. */
  cursorOf(message: Message): string;

  /** The key in such a cursor. Throws CURSOR_INVALID. */
  keyOf(cursor: string): number;

  /**
   * Waits until the frame of this message has been written or the message is final, `timeoutMs` at most, and gives the
   * message as it stands then.
   */
  untilWritten(message: Message, timeoutMs: number): Promise<Message>;

  /**
   * How things stand, and then every change of status, once and in order, each as the message stood right after it. To begin
   * with the message itself, or those of a broadcast's or an agent's messages that are not final, the oldest 10,000 of them.
   * Changes are found in the store, within a second or two, where no hint came. Throws SLOW_CONSUMER where the reader falls
   * too far behind. Ends when `signal` aborts.
   */
  updates(scope: Scope, subject: MessageSubject, signal: AbortSignal): AsyncIterable<Message>;
}
