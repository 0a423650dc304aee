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

/** One draft sent to many agents. */
export interface Broadcast {
  readonly id: string;
  readonly orgId: string | null;
  readonly kind: CommandKind;
  readonly createdAt: Date;
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
