import { type EventKind, eventKinds } from '../agent-gateway/wire/channels.ts';

export { type EventKind, eventKinds };

/** From the least to the worst; what an agent did not say, or said in no known word, is `unknown`. */
export const severities = ['unknown', 'info', 'low', 'medium', 'high', 'critical'] as const;
export type Severity = (typeof severities)[number];

/** Something an agent reported, as it is stored. */
export interface StoredEvent {
  /** Its place in the one order of all events: dense, and never behind an event that committed later. */
  readonly position: number;
  readonly kind: EventKind;
  /** The id that the agent gave the message. */
  readonly messageId: string;
  readonly agentUid: string;
  readonly agentName: string;
  readonly orgId: string;
  /** The agent's clock. */
  readonly occurredAt: Date;
  /** The gateway's clock. */
  readonly receivedAt: Date;
  readonly trusted: boolean;
  /** Only the agent can read the body; `payload` is null then. */
  readonly sealed: boolean;
  readonly severity: Severity;
  /** The message that this answers. */
  readonly replyTo: string | null;
  readonly payload: unknown;
}

/** Events that were stored together, in the order of their positions, which follow each other without a hole. */
export interface StoredGroup {
  readonly events: readonly StoredEvent[];
  /** The same as text, for other gateways: `event-text.ts`. */
  text(): string;
}

/** An event that is not stored yet. */
export interface NewEvent {
  /** Tells an event that comes again: a UUID made of the agent's uid and the message's id. */
  readonly key: string;
  /** Tells whether it says the same: a UUID made of the body. */
  readonly bodyHash: string;
  readonly kind: EventKind;
  readonly orgId: string;
  readonly agentUid: string;
  readonly agentName: string;
  readonly messageId: string;
  readonly occurredAt: Date;
  readonly trusted: boolean;
  readonly sealed: boolean;
  readonly severity: Severity;
  readonly replyTo: string | null;
  /** The JSON text that is kept, and what it says; null where sealed. */
  readonly payloadText: string | null;
  readonly payload: unknown;
}

/** Which events; every given condition must hold. Untrusted ones are left out unless asked for. */
export interface EventFilter {
  readonly kinds?: readonly EventKind[] | undefined;
  readonly agentUid?: string | undefined;
  readonly minSeverity?: Severity | undefined;
  readonly includeUntrusted?: boolean | undefined;
}

/** Events between two places of the stream that cannot be had any more. */
export interface StreamGap {
  readonly from: string | null;
  readonly to: string;
  readonly reason: string;
}

/** Whether an event passes a filter: the twin in memory of the query's conditions. A sealed event passes every severity. */
export function matchesFilter(event: StoredEvent, filter: EventFilter): boolean {
  return (
    (filter.includeUntrusted === true || event.trusted) &&
    (filter.agentUid === undefined || event.agentUid === filter.agentUid) &&
    (filter.kinds === undefined || filter.kinds.includes(event.kind)) &&
    (filter.minSeverity === undefined ||
      event.sealed ||
      severityRank(event.severity) >= severityRank(filter.minSeverity))
  );
}

export function severityRank(severity: Severity): number {
  return severities.indexOf(severity);
}
