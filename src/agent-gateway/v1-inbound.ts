import type { ErrorCode } from '../errors.ts';
import type { NewEvent } from '../events/event.ts';
import { severityOf } from '../events/severity.ts';
import type { LinkStanding } from '../fleet/admission.ts';
import { eventIdentity, fieldsOf, isLikelyTime, namesAnother, uuidOrNull } from './inbound-events.ts';
import { type EventKind, parseAgentChannel } from './wire/channels.ts';
import { decodeBase64 } from './wire/text.ts';
import { answeredId, decodeBody, envelopedSignedBytes, secureMessageSignedBytes, type V1Frame } from './wire/v1.ts';

/** A frame that stands up to every check, as an event to store; or why it does not. */
export type V1Inbound =
  | { readonly event: NewEvent }
  | { readonly refused: ErrorCode }
  /** A handoff agent calls itself by a name that is not its own: fine, unless it is another agent's. */
  | { readonly foreignRef: string; readonly event: NewEvent };

/** Turns the frames of one link into events. */
export interface V1FrameReader {
  /** `unreadSinceMs` is since when frames may have waited to be read; null where they have not. */
  read(frame: V1Frame, standing: LinkStanding, nowMs: number, unreadSinceMs: number | null): V1Inbound;
}

/** How many verified signatures a link remembers: one for its messages and one for its heartbeats, and some to spare. */
const rememberedSignatures = 4;

export function createV1FrameReader(link: {
  readonly dialect: 'handoff' | 'enveloped';
  /** Standard base64, as the agent sent it. */
  readonly publicKey: string;
  readonly verify: (message: Uint8Array, signature: Uint8Array) => boolean;
  readonly clockSkewMs: number;
}): V1FrameReader {
  const { verify } = link;
  const verified: string[] = [];
  /** By what the agent calls itself in what it signs: its uid once it has one; it keeps its name until then, or for ever. */
  let signsAs: 'agentUid' | 'name' = 'agentUid';

  function isSigned(frame: V1Frame, standing: LinkStanding): boolean {
    const signature = decodeBase64(frame.signature);
    if (signature?.length !== 64) return false;
    if (link.dialect === 'handoff') return verify(secureMessageSignedBytes(frame), signature);
    // An enveloped agent's signature covers its identity, the second and a constant nonce: every frame of one second carries
    // the same one over the same bytes, so the answer is the same too.
    const claim = `${frame.timestamp}:${frame.nonce}:${frame.signature}`;
    if (verified.includes(claim)) return true;
    const isSignedAs = (identity: typeof signsAs) =>
      verify(envelopedSignedBytes(standing[identity], link.publicKey, frame), signature);
    const other = signsAs === 'name' ? 'agentUid' : 'name';
    let isValid = isSignedAs(signsAs);
    if (!isValid && isSignedAs(other)) {
      signsAs = other;
      isValid = true;
    }
    if (isValid && verified.push(claim) > rememberedSignatures) verified.shift();
    return isValid;
  }

  return {
    read(frame, standing, nowMs, unreadSinceMs) {
      const channel = parseAgentChannel(frame.channel);
      if (!channel) return { refused: 'FRAME_CHANNEL_UNKNOWN' };
      const isForeign = namesAnother(channel, standing);
      if (isForeign && link.dialect === 'enveloped') return { refused: 'FRAME_CHANNEL_FOREIGN' };
      if (standing.closedEventKinds.has(channel.kind)) return { refused: 'FRAME_CHANNEL_CLOSED' };
      const isAhead = frame.timestampMs > nowMs + link.clockSkewMs;
      const isOld = frame.timestampMs < (unreadSinceMs ?? nowMs) - link.clockSkewMs;
      if (isAhead || isOld) return { refused: 'FRAME_CLOCK_SKEW' };
      if (!isSigned(frame, standing)) return { refused: 'FRAME_SIGNATURE_INVALID' };
      const event =
        link.dialect === 'handoff'
          ? sealedEvent(frame, channel.kind, standing, link.publicKey)
          : openEvent(frame, channel.kind, standing, link.publicKey, nowMs);
      if (!event) return { refused: 'FRAME_PAYLOAD_TOO_DEEP' };
      return isForeign && channel.agentRef !== null ? { foreignRef: channel.agentRef, event } : { event };
    },
  };
}

/** Nobody but a handoff agent can open what it sealed: kept as told, without a body. */
function sealedEvent(frame: V1Frame, kind: EventKind, standing: LinkStanding, publicKey: string): NewEvent {
  return {
    ...identity(frame, kind, standing, publicKey, frame.payload),
    occurredAt: new Date(frame.timestampMs),
    sealed: true,
    severity: 'unknown',
    replyTo: uuidOrNull(answeredId(frame)),
    payloadText: null,
    payload: null,
  };
}

function openEvent(
  frame: V1Frame,
  kind: EventKind,
  standing: LinkStanding,
  publicKey: string,
  nowMs: number,
): NewEvent | null {
  const body = decodeBody(frame.payload);
  if (!body.ok) return null;
  const { text, value } = body.value;
  const fields = fieldsOf(value);
  return {
    ...identity(frame, kind, standing, publicKey, text),
    occurredAt: new Date(reportedTimeMs(fields.timestamp, nowMs) ?? frame.timestampMs),
    sealed: false,
    severity: severityOf(fields.severity),
    replyTo: uuidOrNull(answeredId(frame)) ?? (frame.type === 'response' ? uuidOrNull(answeredInBody(fields)) : null),
    payloadText: text,
    payload: value,
  };
}

/** An id is used up for the key that used it: a stranger in quarantine must not take the ids of the trusted agent. */
function identity(frame: V1Frame, kind: EventKind, standing: LinkStanding, publicKey: string, body: string) {
  return eventIdentity(standing, { id: frame.id, kind, body, speaker: publicKey });
}

/** The time that a payload tells, in seconds, milliseconds or RFC 3339 (UTC without a zone), where it is a time at all. */
export function reportedTimeMs(value: unknown, nowMs: number): number | null {
  let ms = Number.NaN;
  if (typeof value === 'number') ms = value > 100_000_000_000 ? value : value * 1_000;
  else if (typeof value === 'string' && /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}/.test(value))
    ms = Date.parse(/([Zz]|[+-]\d{2}:?\d{2})$/.test(value) ? value : `${value}Z`);
  else if (typeof value === 'string' && /^\d{9,13}(\.\d+)?$/.test(value)) return reportedTimeMs(Number(value), nowMs);
  return isLikelyTime(ms, nowMs) ? Math.floor(ms) : null;
}

function answeredInBody(fields: Readonly<Record<string, unknown>>): string | null {
  for (const name of ['request_id', 'ack_for', 'reply_to', 'message_id']) {
    const value = fields[name];
    if (typeof value === 'string') return value;
  }
  return null;
}
