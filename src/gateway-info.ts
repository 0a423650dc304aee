import type { ErrorCode } from './errors.ts';
import type { EventKind } from './events/event.ts';
import type { MessageStatus } from './messages/message.ts';

/** What a consumer may ask about the gateway itself. */
export interface GatewayInfo {
  readonly version: string;
  /** This instance's name. */
  readonly instance: string;
  /** The gateway's own keys as they are now. */
  keys(): { readonly current: KeyName; readonly next: KeyName | null };
  statistics(): Promise<GatewayStatistics>;
}

/** A key, by its fingerprint: lower-case hex SHA-256 of the raw public key. */
export interface KeyName {
  readonly fingerprint: string;
}

/** What this instance has counted since its start. */
export interface GatewayStatistics {
  readonly since: Date;
  /** How often a message came into each status. */
  readonly messages: readonly { readonly status: MessageStatus; readonly count: number }[];
  /** Frames written for the messages that were delivered, retries among them. */
  readonly deliveryAttempts: number;
  /** From acceptance to delivery; null before the first. */
  readonly meanDeliveryMs: number | null;
  readonly events: readonly { readonly kind: EventKind; readonly count: number }[];
  /** Frames of agents that were dropped. */
  readonly refusedFrames: readonly { readonly reason: ErrorCode; readonly count: number }[];
}
