import type { ErrorCode } from '../errors.ts';
import type { NewEvent } from '../events/event.ts';
import { severityOf } from '../events/severity.ts';
import type { LinkStanding } from '../fleet/admission.ts';
import { eventIdentity, fieldsOf, isLikelyTime, namesAnother, uuidOrNull } from './inbound-events.ts';
import { parseAgentChannel } from './wire/channels.ts';
import type { V2Message } from './wire/v2-message.ts';

/** A message that may be stored, as an event; or why it may not. */
export type V2Inbound = { readonly event: NewEvent } | { readonly refused: ErrorCode };

/** `publicKey` is the link's, standard base64. */
export function readV2Event(message: V2Message, standing: LinkStanding, publicKey: string, nowMs: number): V2Inbound {
  const channel = parseAgentChannel(message.channel);
  if (!channel) return { refused: 'FRAME_CHANNEL_UNKNOWN' };
  if (namesAnother(channel, standing)) return { refused: 'FRAME_CHANNEL_FOREIGN' };
  if (standing.closedEventKinds.has(channel.kind)) return { refused: 'FRAME_CHANNEL_CLOSED' };
  const { id, payloadText, payload, timestampMs, headers } = message;
  // Whoever is trusted is the agent, whatever key it has by now: what it sends again after a rotation is known. Whoever is
  // not speaks for itself alone: a stranger in quarantine must not use up the ids of the trusted agent.
  const speaker = standing.trusted ? 'trusted' : publicKey;
  return {
    event: {
      ...eventIdentity(standing, { id, kind: channel.kind, body: payloadText, speaker }),
      occurredAt: new Date(isLikelyTime(timestampMs, nowMs) ? timestampMs : nowMs),
      sealed: false,
      severity: severityOf(fieldsOf(payload).severity),
      replyTo: uuidOrNull(headers.replyTo),
      payloadText,
      payload,
    },
  };
}
