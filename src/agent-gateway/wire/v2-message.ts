import { decodeUtf8, utf8 } from './bytes.ts';
import { maxChannelLength } from './channels.ts';
import { type Decoded, decoded, refused } from './errors.ts';
import { isRecord, parseJson } from './json.ts';
import { isIdentifier, isWellFormed } from './text.ts';
import { scanPayloads } from './v2-batch-scan.ts';

/** The messages of protocol v2: what a record holds, once it has been opened and its signature verified. */

export const v2MessageTypes = ['request', 'response', 'event', 'heartbeat', 'ack', 'error'] as const;
export type V2MessageType = (typeof v2MessageTypes)[number];

export interface V2Message extends V2OutgoingMessage {
  /** The value of `payloadText`. */
  readonly payload: unknown;
  readonly headers: V2Headers;
}

export interface V2OutgoingMessage {
  readonly id: string;
  readonly type: V2MessageType;
  readonly channel: string;
  /** The payload as JSON text, exactly as it was or will be written. */
  readonly payloadText: string;
  readonly timestampMs: number;
  readonly headers?: Partial<V2Headers>;
}

export interface V2Headers {
  /** The ids that an ack, or an error, answers; empty where it names none. */
  readonly ackFor: readonly string[];
  /** The id of the message that this one answers. */
  readonly replyTo: string | null;
  /** How long a command may still be carried out, counted from its receipt. */
  readonly expiresInMs: number | null;
  /** W3C Trace Context. */
  readonly traceparent: string | null;
}

/** Most ids in one `ack_for`. */
export const maxAcknowledgedIds = 1_024;
const maxTimestampMs = 253_402_300_799_999;
const traceparentPattern = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The JSON array that is signed and sealed. */
export function encodeBatch(messages: readonly V2OutgoingMessage[]): Uint8Array {
  return utf8(`[${messages.map(encodeMessage).join(',')}]`);
}

/** One element of the array; senders that fill records count its bytes. */
export function encodeMessage(message: V2OutgoingMessage): string {
  const { id, type, channel, timestampMs, payloadText } = message;
  const envelope = JSON.stringify({
    id,
    type,
    channel,
    timestamp: timestampMs,
    headers: headerFields(message.headers),
  });
  return `${envelope.slice(0, -1)},"payload":${payloadText}}`;
}

function headerFields(headers: Partial<V2Headers> = {}): object {
  return {
    ack_for: headers.ackFor?.length ? headers.ackFor : undefined,
    reply_to: headers.replyTo ?? undefined,
    expires_in: headers.expiresInMs ?? undefined,
    traceparent: headers.traceparent ?? undefined,
  };
}

/**
 * The messages of a record, one to `maxMessages`. One that is not sound refuses the record: FRAME_MALFORMED, FRAME_ID_INVALID
 * or FRAME_PAYLOAD_TOO_DEEP, for the metrics; the link closes with 4009 whichever it is.
 */
export function decodeBatch(json: Uint8Array, maxMessages: number): Decoded<readonly V2Message[]> {
  const text = decodeUtf8(json);
  const elements = text === null ? undefined : parseJson(text);
  if (text === null || !Array.isArray(elements)) return refused('FRAME_MALFORMED');
  if (elements.length === 0 || elements.length > maxMessages || !elements.every(isRecord))
    return refused('FRAME_MALFORMED');
  const payloadTexts = scanPayloads(text);
  if (!payloadTexts) return refused('FRAME_PAYLOAD_TOO_DEEP');
  const messages: V2Message[] = [];
  for (const [index, element] of elements.entries()) {
    const message = decodeMessage(element, payloadTexts[index]);
    if (!message.ok) return message;
    messages.push(message.value);
  }
  return decoded(messages);
}

function decodeMessage(fields: Readonly<Record<string, unknown>>, payloadText: string | undefined): Decoded<V2Message> {
  const { id, channel, payload, timestamp } = fields;
  if (!isIdentifier(id)) return refused('FRAME_ID_INVALID');
  const type = v2MessageTypes.find((known) => known === fields.type);
  const headers = decodeHeaders(fields.headers);
  if (!type || !isChannel(channel) || payloadText === undefined || !isTimestamp(timestamp) || !headers)
    return refused('FRAME_MALFORMED');
  if (type === 'ack' && headers.ackFor.length === 0) return refused('FRAME_MALFORMED');
  return decoded({ id, type, channel, payload, payloadText, timestampMs: timestamp, headers });
}

function decodeHeaders(value: unknown): V2Headers | null {
  if (value === undefined) return { ackFor: [], replyTo: null, expiresInMs: null, traceparent: null };
  if (!isRecord(value)) return null;
  const { ack_for: ackFor = [], reply_to: replyTo = null, expires_in: expiresInMs = null, traceparent = null } = value;
  if (!isIdList(ackFor) || !(replyTo === null || isIdentifier(replyTo))) return null;
  if (!(expiresInMs === null || isTimestamp(expiresInMs))) return null;
  if (!(traceparent === null || isTraceparent(traceparent))) return null;
  return { ackFor, replyTo, expiresInMs, traceparent };
}

function isIdList(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.length <= maxAcknowledgedIds && value.every(isIdentifier);
}

/** Whether it is known, and whose it is, is for the link to say. */
function isChannel(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    value.length > 0 &&
    value.length <= maxChannelLength &&
    !/[\u0000-\u001f\u007f]/.test(value) &&
    isWellFormed(value)
  );
}

/** Milliseconds since 1970, up to the year 9999. */
export function isTimestamp(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= maxTimestampMs;
}

/** W3C Trace Context. */
export function isTraceparent(value: unknown): value is string {
  return typeof value === 'string' && traceparentPattern.test(value);
}
