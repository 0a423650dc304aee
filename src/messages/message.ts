import type { CommandKind } from '../agent-gateway/wire/channels.ts';

export type { CommandKind };

/** The life of a message; the last four are final (`docs/DELIVERY.md`). */
export const messageStatuses = ['pending', 'sent', 'delivered', 'failed', 'expired', 'cancelled'] as const;
export type MessageStatus = (typeof messageStatuses)[number];

export const messageTypes = ['request', 'response', 'event'] as const;
export type MessageType = (typeof messageTypes)[number];

/** From the least urgent; the place in this list is what the database sorts by. */
export const messagePriorities = ['low', 'normal', 'high', 'urgent'] as const;
export type MessagePriority = (typeof messagePriorities)[number];

/** Something sent to an agent. */
export interface Message {
  readonly id: string;
  /** Its place in the one order of acceptance. */
  readonly sequence: number;
  readonly agentUid: string;
  readonly agentName: string;
  readonly orgId: string;
  readonly kind: CommandKind;
  readonly type: MessageType;
  readonly priority: MessagePriority;
  readonly status: MessageStatus;
  readonly payload: unknown;
  readonly attempts: number;
  readonly maxRetries: number;
  readonly createdAt: Date;
  readonly sentAt: Date | null;
  readonly deliveredAt: Date | null;
  readonly expiresAt: Date;
  /** Why it failed, for an operator to read. */
  readonly failure: string | null;
  readonly broadcastId: string | null;
  /** Where the request that sent it stands in a trace, as W3C Trace Context writes it. */
  readonly traceparent: string | null;
  /** How often its status has changed since it was accepted. */
  readonly revision: number;
  /** The latest of these changes, oldest first. */
  readonly history: readonly Transition[];
}

/** A change of a message's status, and how the message stood right after it. */
export interface Transition {
  readonly revision: number;
  readonly status: MessageStatus;
  readonly at: Date;
  readonly attempts: number;
  readonly failure: string | null;
}

/** What every message that is sent says, whether to one agent or to many. */
export interface MessageDraft {
  readonly kind: CommandKind;
  /** Any JSON value. */
  readonly payload: unknown;
  readonly type: MessageType;
  readonly priority?: MessagePriority | undefined;
  /** The gateway's MESSAGE_TTL where absent. */
  readonly ttlSeconds?: number | undefined;
  /** The gateway's MESSAGE_RETRY_ATTEMPTS where absent. */
  readonly maxRetries?: number | undefined;
  readonly idempotencyKey?: string | undefined;
}

/** How fast a broadcast goes out, and when it stops by itself. */
export interface BroadcastPace {
  /** All at once where absent. */
  readonly ratePerSecond?: number | undefined;
  /** Never where absent. */
  readonly abortAtFailurePercent?: number | undefined;
}

/** The last three are final. What is being cancelled or aborted still has messages that are not final. */
export type BroadcastState = 'running' | 'cancelling' | 'aborting' | 'cancelled' | 'aborted' | 'finished';

/** One draft sent to many agents. */
export interface Broadcast {
  readonly id: string;
  readonly orgId: string | null;
  readonly kind: CommandKind;
  readonly createdAt: Date;
  readonly state: BroadcastState;
  /** For an operator to read; null unless it was aborted. */
  readonly abortedReason: string | null;
  readonly ratePerSecond: number | null;
  readonly abortAtFailurePercent: number | null;
  /** Of what each of its messages says, as JSON. */
  readonly payloadBytes: number;
}

export interface BroadcastProgress {
  readonly targets: number;
  readonly queued: number;
  readonly sent: number;
  readonly delivered: number;
  readonly failed: number;
  readonly expired: number;
  readonly cancelled: number;
}

export function isFinal(status: MessageStatus): boolean {
  return status !== 'pending' && status !== 'sent';
}

/** What is known of a message's life, from its acceptance on. */
export function lifeOf(message: Message): Transition[] {
  // A message changes its status only where it was accepted as pending.
  const { status, failure } = message.revision === 0 ? message : { status: 'pending' as const, failure: null };
  return [{ revision: 0, status, at: message.createdAt, attempts: 0, failure }, ...message.history];
}

/** How a message has stood after each change beyond `revision`, the last time as it stands. -1 begins with its acceptance. */
export function statesSince(message: Message, revision: number): Message[] {
  const life = lifeOf(message);
  const states = life
    .filter((transition) => transition.revision > revision && transition.revision < message.revision)
    .map((transition) => stateAfter(message, life, transition));
  return message.revision > revision ? [...states, message] : states;
}

function stateAfter(message: Message, life: readonly Transition[], transition: Transition): Message {
  const { revision, status, at, attempts, failure } = transition;
  const past = life.filter((earlier) => earlier.revision <= revision);
  const sent = attempts === 0 ? undefined : past.findLast((earlier) => earlier.status === 'sent');
  return {
    ...message,
    ...{ revision, status, attempts, failure },
    history: past.slice(1),
    sentAt: sent?.at ?? null,
    deliveredAt: status === 'delivered' ? at : null,
  };
}
