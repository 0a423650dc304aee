import type { Enrollment } from '../../agent-gateway/wire/v2-session-channel.ts';

/** What becomes of an agent and its links. */
export type AgentStatus =
  | {
      readonly type: 'open';
      /** The agent's id at the gateway. */
      readonly uid: string;
      readonly epoch: number;
      readonly enrollment: Enrollment;
      /** The fingerprint of the gateway's key. */
      readonly gateway: string;
    }
  /** A link, or an attempt at one, ended. `returnsInMs` is null where another link is open, or the agent was closed. */
  | {
      readonly type: 'closed';
      readonly code: number;
      readonly reason: string;
      readonly httpStatus: number | null;
      readonly returnsInMs: number | null;
    }
  /** An operator revoked the agent; it asks again, hourly at most, whether it may come back. */
  | { readonly type: 'revoked' }
  /** Another process uses this agent's key. */
  | { readonly type: 'superseded' }
  | { readonly type: 'enrollment'; readonly enrollment: Enrollment }
  /** The gateway's keys changed, and the pins with them. */
  | { readonly type: 'pinned'; readonly pins: readonly string[] }
  /** A message of an earlier process, or an answer, leaves the outbox without having been taken. */
  | { readonly type: 'refused'; readonly id: string; readonly code: string }
  /** The gateway says that something is wrong, and not with what. */
  | { readonly type: 'notice'; readonly code: string; readonly message: string }
  /** Nothing can be written; the agent takes nothing on meanwhile. */
  | { readonly type: 'store-failed'; readonly error: unknown };

/**
 * `connecting`, also while it waits for the next attempt after the first one failed · `open` · `waiting` to come back · `closed`
 * by its owner.
 */
export type AgentState = 'connecting' | 'open' | 'waiting' | 'closed';

export interface AgentStatistics {
  readonly links: number;
  readonly failedAttempts: number;
  readonly outboxItems: number;
  readonly outboxBytes: number;
  readonly reported: number;
  readonly acknowledged: number;
  /** Reports that were not taken: by the outbox, or by the gateway. */
  readonly refused: number;
  readonly recordsSent: number;
  readonly recordsReceived: number;
  readonly rekeys: number;
  readonly commandsTaken: number;
  /** Commands that came again, and were acknowledged again. */
  readonly commandsRepeated: number;
  readonly commandsExpired: number;
  readonly commandsFailed: number;
}
