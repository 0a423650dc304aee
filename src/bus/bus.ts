import type { StoredGroup } from '../events/event.ts';
import type { PresenceChange } from '../fleet/agent.ts';
import type { Message } from '../messages/message.ts';

/** What parts of the gateway, and gateways, tell each other. Everything here may be lost: the database is the truth. */
export interface Topics {
  /** Events that have just been stored here. The other gateways hear `stored`, and `bodies` where one of them listens. */
  events: StoredGroup;
  /** The stream of events has come as far as this: another gateway has stored what comes before. */
  stored: { readonly position: number };
  /**
   * What other gateways have stored: a JSON array of the texts of groups, ahead of the `stored` that tells of them. Nobody sends
   * any while nobody listens, and what is too large, or does not come, is in the store.
   */
  bodies: { readonly text: string };
  presence: PresenceChange;
  /** Something about these agents changed that their links must look at: approval, keys, channels. */
  agents: { readonly agentUids: readonly string[] };
  /** An operator wants these agents' links closed. */
  disconnect: { readonly agentUids: readonly string[]; readonly reason: 'LINK_DISCONNECTED' | 'AGENT_REVOKED' };
  /** Links of this gateway have come to own their agents: links of lower epochs, wherever they are, are superseded. */
  owned: readonly { readonly agentUid: string; readonly epoch: number }[];
  /** Messages wait for these agents. */
  queued: { readonly agentUids: readonly string[] };
  /** Messages wait for so many agents that each gateway looks for its own. */
  queuedForMany: Readonly<Record<string, never>>;
  /** API keys that were just revoked, by id. */
  credentials: { readonly revoked: readonly string[] };
  /** Messages whose status this gateway has just changed, each as it stands. The other gateways hear `changed`. */
  messages: readonly Message[];
  /** Messages whose status another gateway has just changed: what they say is in the database. */
  changed: readonly MessageChange[];
  /** Something that other gateways told may have been missed: whoever lives by hints looks for itself, now. */
  missed: Readonly<Record<string, never>>;
}

/** A message, by what it may be followed by. */
export interface MessageChange {
  readonly id: string;
  readonly agentUid: string;
  readonly broadcastId: string | null;
}

export type Topic = keyof Topics;

/** Carries hints and fan-out. Messages of one topic arrive in the order in which one publisher sent them. */
export interface Bus {
  /** Never throws and never waits: what cannot be carried is lost, and whoever should have heard it hears `missed` later. */
  publish<T extends Topic>(topic: T, message: Topics[T]): void;

  /** Calls `listener` for what is published from now on, until the returned function is called. */
  subscribe<T extends Topic>(topic: T, listener: (message: Topics[T]) => void): () => void;

  /** The other gateways that this bus has lately heard, by their instance ids. */
  readonly peers: readonly string[];

  /** How many hints could not be carried to the other gateways since the start. */
  readonly lost: number;

  /** Resolves when the bus carries messages; rejects with the reason where it does not. */
  check(): Promise<void>;

  /** Sends what has gathered, for a second at most, and lets go of everything. */
  close(): Promise<void>;
}
