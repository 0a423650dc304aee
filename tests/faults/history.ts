import type { EventKind } from '../../src/agent-gateway/wire/channels.ts';
import type { MessagePriority, MessageStatus } from '../../src/messages/message.ts';

/** Something that is always so: gives a sentence for each time that it was not. */
export type Invariant = (history: History) => readonly string[];

/** Milliseconds since 1970 with fractions, which never go back. */
export function preciseNowMs(): number {
  return performance.timeOrigin + performance.now();
}

/**
 * What was asked of gateways and what everyone saw of them, in plain values, for `invariants.ts` to judge. Times are the test's
 * own, by `preciseNowMs`.
 */
export interface History {
  readonly sends: readonly Send[];
  readonly broadcasts: readonly BroadcastSend[];
  /** Ids of messages whose cancellation was confirmed. */
  readonly cancelled: readonly string[];
  /** Each agent's in the order in which it read them. */
  readonly reads: readonly CommandRead[];
  /** When the network held back what was on its way to agents, or they had no time to read it: nobody's fault. */
  readonly holds: readonly Hold[];
  readonly statuses: readonly StatusSeen[];
  /** Each agent's in the order in which it wrote them. What was written to a dead socket is here as well. */
  readonly reports: readonly Report[];
  /** What agents of v2 had carried out, in turn. */
  readonly applied: readonly AgentFact[];
  /** Reports of agents of v2 that a gateway acknowledged. */
  readonly acknowledged: readonly AgentFact[];
  /** Handshakes that the gateway answered and that came to nothing, as sentences: a deployed agent is stranded by one. */
  readonly refusals: readonly string[];
  readonly streams: readonly StreamSeen[];
  readonly owners: readonly OwnerSeen[];
  readonly stored: Stored;
}

/** One message that a caller wanted sent, over as many requests as it took. */
export interface Send {
  readonly key: string;
  readonly agent: string;
  readonly priority: MessagePriority;
  readonly askedAtMs: number;
  /** What the API answered, in turn; requests whose answer was lost have none. */
  readonly answers: readonly { readonly messageId: string; readonly answeredAtMs: number }[];
}

/** The same for a broadcast. */
export interface BroadcastSend {
  readonly key: string;
  readonly answers: readonly { readonly broadcastId: string; readonly targets: number }[];
}

export interface CommandRead {
  readonly agent: string;
  readonly messageId: string;
  /** The agent's connections count from 1. */
  readonly link: number;
  readonly readAtMs: number;
}

/** A message of an agent's, or for it, of which something is so. */
export interface AgentFact {
  readonly agent: string;
  readonly messageId: string;
}

export interface Hold {
  readonly fromMs: number;
  readonly untilMs: number;
}

/** A status that the API told. */
export interface StatusSeen {
  readonly messageId: string;
  readonly status: MessageStatus;
  /** Where it was told: one connection's `messageUpdates`, or `query` for answers to questions. */
  readonly source: string;
  readonly askedAtMs: number;
  readonly toldAtMs: number;
}

/** An event as its agent wrote it. */
export interface Report {
  readonly agent: string;
  readonly messageId: string;
  readonly kind: EventKind;
  /** For agents of v2, whose order does not depend on it: one for each priority. */
  readonly link: number;
  /** What its body says; an agent's events are numbered. Null where the body is sealed. */
  readonly number: number | null;
  readonly writtenAtMs: number;
  /** Whether it was written again over a later connection, which what is left of the earlier one may come after. */
  readonly isRepeated: boolean;
}

/** What one subscriber to events saw over all of its connections. */
export interface StreamSeen {
  readonly name: string;
  /** The cursor from which it began. */
  readonly from: string;
  /** The kinds that it asked for; null: all. */
  readonly kinds: readonly EventKind[] | null;
  readonly events: readonly { readonly cursor: string; readonly agent: string; readonly messageId: string }[];
  /** Anything else that it was given: gaps, an end. */
  readonly faults: readonly string[];
}

/** Who owned an agent at some moment, as the database had it. Those of one agent are in the order of looking. */
export interface OwnerSeen {
  readonly agent: string;
  readonly epoch: number;
  readonly instance: string;
  /** A hash: it tells one link from another. */
  readonly session: string;
}

/** The database at one moment: read after what the API told was noted, and before the agents' journals were. */
export interface Stored {
  /** Not later than that moment. */
  readonly readAtMs: number;
  readonly messages: readonly StoredMessage[];
  /** By position. */
  readonly events: readonly StoredEvent[];
  /** The last position given out. */
  readonly head: number;
}

export interface StoredMessage {
  readonly id: string;
  readonly agent: string;
  readonly status: MessageStatus;
  readonly priority: MessagePriority;
  readonly attempts: number;
  readonly maxRetries: number;
  readonly expiresAtMs: number;
  readonly key: string | null;
  readonly broadcastId: string | null;
  readonly failure: string | null;
}

export interface StoredEvent {
  readonly position: number;
  readonly cursor: string;
  readonly agent: string;
  readonly messageId: string;
  readonly kind: EventKind;
  readonly number: number | null;
}
