import type { CommandKind, MessageType } from './message.ts';

/** A message on its way to an agent. */
export interface Command {
  readonly id: string;
  readonly type: MessageType;
  readonly kind: CommandKind;
  readonly payload: unknown;
  /** For agents whose protocol has a place for it. */
  readonly traceparent: string | null;
  /** What is left of its time, as it is read; nothing is written once it is not positive. */
  readonly expiresInMs: number;
}

/** What of a written frame is recorded with its message. */
export interface FrameRecord {
  readonly encryptedPayload: string;
  readonly nonce: string;
  readonly signature: string;
}

/**
 * What a link found out about a message that it wrote: `read`, by its agent, or acknowledged by it; `unread`, because the link
 * ended or the agent did not answer in time: it may have been read; `refused` by the agent, for good, with its reason.
 */
export type Confirmation = 'read' | 'unread' | { readonly refused: string };

export interface WrittenCommand {
  /** Null where there is nothing to record. */
  readonly frame: FrameRecord | null;
  /** Settles in any case, and soon: the next messages of this agent wait for it. */
  readonly confirmation: Promise<Confirmation>;
}

/**
 * The side of an agent's link that messages see, in whatever protocol: from `attach` to `detach` at the dispatch. It takes one
 * batch at a time: the next one comes when every confirmation of the one before is written down.
 */
export interface CommandLink {
  readonly agentUid: string;
  readonly epoch: number;
  /** Whether the link is open, owns its agent and may carry commands now. Nothing is claimed for one that may not. */
  readonly canWrite: boolean;
  /** How many messages one batch may hold. */
  readonly maxBatch: number;
  /**
   * Writes these in their order, one frame for each or one for all. Answers for each one in its place; null where it was not
   * written, and never will be: right before each write the link looks again whether it may and whether there is time left.
   */
  write(commands: readonly Command[]): readonly (WrittenCommand | null)[];
}
