/** What an agent's owner gets to see of it. `link` counts the agent's connections from 1. */
import type { AgentFailure } from './agent-failure.ts';
import type { DropReason, OpenedCommand } from './v1-commands.ts';

export type AgentEvent =
  | { readonly type: 'connected'; readonly link: number }
  | { readonly type: 'authenticated'; readonly link: number; readonly sessionToken: string; readonly expiresAt: number }
  | { readonly type: 'registered'; readonly link: number; readonly uid: string; readonly bootstrapToken: string }
  /** The handshake is over; `handshakeMs` counts from the dial. */
  | { readonly type: 'ready'; readonly link: number; readonly handshakeMs: number }
  /** A ping of the backend, answered already. */
  | { readonly type: 'pinged'; readonly link: number; readonly body: string }
  | {
      readonly type: 'frame-dropped';
      readonly link: number;
      readonly reason: DropReason;
      readonly channel: string | null;
    }
  /** A newer connection took its place; it stays open until somebody closes it. */
  | { readonly type: 'abandoned'; readonly link: number }
  | { readonly type: 'closed'; readonly link: number; readonly code: number; readonly reason: string }
  /** A dial or a handshake came to nothing. */
  | { readonly type: 'failed'; readonly link: number; readonly failure: AgentFailure }
  /** It will not dial again. */
  | { readonly type: 'stranded' }
  | { readonly type: 'crashed'; readonly failure: AgentFailure };

export type AgentEventType = AgentEvent['type'];
export type AgentEventOf<Type extends AgentEventType> = Extract<AgentEvent, { readonly type: Type }>;

/** A command as it came to this agent. */
export interface ReceivedCommand extends OpenedCommand {
  readonly id: string;
  readonly channel: string;
  /** The connection it came over. */
  readonly link: number;
  /** The agent's clock. */
  readonly receivedAtMs: number;
}

/**
 * `connecting` until the first handshake is over · `ready` · `waiting` for the next dial after a drop · `stranded` or
 * `crashed`: alive no more, as far as the backend can tell · `closed` by its owner.
 */
export type AgentState = 'connecting' | 'ready' | 'waiting' | 'stranded' | 'crashed' | 'closed';
