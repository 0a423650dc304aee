import { hash } from 'node:crypto';
import type { EventKind } from '../events/event.ts';
import type { LinkStanding } from '../fleet/admission.ts';
import type { AgentChannel } from './wire/channels.ts';

/** What events are made of in either protocol. */

/** Whose event it is, and what tells it from others. */
export function eventIdentity(
  standing: LinkStanding,
  message: {
    readonly id: string;
    readonly kind: EventKind;
    readonly body: string;
    /** Among whom of those who speak for the agent the id is used up. */
    readonly speaker: string;
  },
) {
  return {
    key: digestUuid(`${standing.agentUid}\n${message.speaker}\n${message.id}`),
    bodyHash: digestUuid(`${message.kind}\n${message.body}`),
    kind: message.kind,
    orgId: standing.orgId,
    agentUid: standing.agentUid,
    agentName: standing.name,
    messageId: message.id,
    trusted: standing.trusted,
  };
}

export function namesAnother(channel: AgentChannel, standing: LinkStanding): boolean {
  const { agentRef } = channel;
  return agentRef !== null && agentRef !== standing.name && agentRef.toLowerCase() !== standing.agentUid;
}

const earliestTimeMs = Date.UTC(2000, 0, 1);
const latestAheadMs = 24 * 3_600_000;

/** Whether an agent's clock may have said this: from 2000 to a day from now. */
export function isLikelyTime(ms: number, nowMs: number): boolean {
  return ms >= earliestTimeMs && ms <= nowMs + latestAheadMs;
}

/** The members of a payload that is an object. */
export function fieldsOf(payload: unknown): Readonly<Record<string, unknown>> {
  return isRecord(payload) ? payload : {};
}

export function uuidOrNull(text: string | null): string | null {
  return text !== null && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text) ? text.toLowerCase() : null;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The first half of a SHA-256 in the form of a UUID: an exact and compact key for the database. */
function digestUuid(text: string): string {
  const hex = hash('sha256', text, 'hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20, 32)}`;
}
