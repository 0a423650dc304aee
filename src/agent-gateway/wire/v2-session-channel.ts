import { decodeBase64Url, encodeBase64Url } from './bytes.ts';
import { type Decoded, decoded, refused } from './errors.ts';
import { isRecord } from './json.ts';
import { isIdentifier } from './text.ts';

/**
 * What gateway and agent say to each other about the session itself, on the channel `session`: payloads of messages, each
 * with its name in `op`, as plain values for `JSON.stringify`, and back. Errors may stand on any channel.
 */
export const sessionChannel = 'session';

/** M4, the gateway's first record: type `response`, `op: "session"`. */
export interface SessionGrant {
  readonly agentUid: string;
  readonly sessionToken: string;
  /** When this session ends; the agent opens another link before. Unix milliseconds of the gateway's clock. */
  readonly expiresAtMs: number;
  readonly serverTimeMs: number;
  /** Rises with each link of the agent; it refuses a grant that is lower than one it has seen. */
  readonly epoch: number;
  readonly heartbeatMs: number;
  readonly limits: SessionLimits;
  readonly enrollment: Enrollment;
  readonly keys: GatewayKeys;
}

export const enrollments = ['trusted', 'quarantined'] as const;
export type Enrollment = (typeof enrollments)[number];

export interface SessionLimits {
  /** Longest binary frame, either way. */
  readonly maxRecordBytes: number;
  /** Most messages in a record. */
  readonly maxBatchMessages: number;
  /** Most messages that wait for their acknowledgement, each way. */
  readonly maxInFlightMessages: number;
  /** How long an acknowledgement may take before the message counts as lost. */
  readonly ackTimeoutMs: number;
}

/** The gateway's identity keys, 32 bytes each: what the agent pins from now on. */
export interface GatewayKeys {
  readonly current: Uint8Array;
  readonly next: Uint8Array | null;
}

/** `rotate`, a request of the agent: its new key, with the signatures of both over the same bytes. */
export interface KeyRotation {
  readonly publicKey: Uint8Array;
  readonly signatureByOld: Uint8Array;
  readonly signatureByNew: Uint8Array;
}

/** What a message of type `error` says of the messages that it names. */
export interface ErrorNotice {
  /** A code of the error catalogue. */
  readonly code: string;
  readonly message: string;
  /** Whether the same message may be sent again. */
  readonly retryable: boolean;
  readonly retryAfterMs: number | null;
}

export function encodeSessionGrant(grant: SessionGrant): object {
  const { limits } = grant;
  return {
    op: 'session',
    uid: grant.agentUid,
    session_token: grant.sessionToken,
    expires_at: grant.expiresAtMs,
    server_time: grant.serverTimeMs,
    epoch: grant.epoch,
    heartbeat: grant.heartbeatMs,
    limits: {
      max_record: limits.maxRecordBytes,
      max_batch: limits.maxBatchMessages,
      max_in_flight: limits.maxInFlightMessages,
      ack_timeout: limits.ackTimeoutMs,
    },
    enrollment: grant.enrollment,
    keys: keyFields(grant.keys),
  };
}

export function decodeSessionGrant(payload: unknown): Decoded<SessionGrant> {
  const fields = payloadOf(payload, 'session');
  const limits = decodeLimits(fields?.limits);
  const keys = decodeKeys(fields?.keys);
  const enrollment = enrollments.find((known) => known === fields?.enrollment);
  if (!fields || !limits || !keys || !enrollment) return refused('FRAME_MALFORMED');
  const { uid: agentUid, session_token: sessionToken, epoch } = fields;
  const { expires_at: expiresAtMs, server_time: serverTimeMs, heartbeat: heartbeatMs } = fields;
  if (!isIdentifier(agentUid) || !isIdentifier(sessionToken) || !isCount(epoch)) return refused('FRAME_MALFORMED');
  if (!isCount(expiresAtMs) || !isCount(serverTimeMs) || !isPositive(heartbeatMs)) return refused('FRAME_MALFORMED');
  return decoded({ agentUid, sessionToken, expiresAtMs, serverTimeMs, epoch, heartbeatMs, limits, enrollment, keys });
}

/** `keys`, an event of the gateway: its keys have changed. */
export function encodeKeysNotice(keys: GatewayKeys): object {
  return { op: 'keys', ...keyFields(keys) };
}

export function decodeKeysNotice(payload: unknown): Decoded<GatewayKeys> {
  const keys = decodeKeys(payloadOf(payload, 'keys'));
  return keys ? decoded(keys) : refused('FRAME_MALFORMED');
}

/** `enrollment`, an event of the gateway: the agent's quarantine has ended. */
export function encodeEnrollmentNotice(enrollment: Enrollment): object {
  return { op: 'enrollment', enrollment };
}

export function decodeEnrollmentNotice(payload: unknown): Decoded<Enrollment> {
  const fields = payloadOf(payload, 'enrollment');
  const enrollment = enrollments.find((known) => known === fields?.enrollment);
  return enrollment ? decoded(enrollment) : refused('FRAME_MALFORMED');
}

export function encodeKeyRotation({ publicKey, signatureByOld, signatureByNew }: KeyRotation): object {
  return {
    op: 'rotate',
    key: encodeBase64Url(publicKey),
    by_old: encodeBase64Url(signatureByOld),
    by_new: encodeBase64Url(signatureByNew),
  };
}

export function decodeKeyRotation(payload: unknown): Decoded<KeyRotation> {
  const fields = payloadOf(payload, 'rotate');
  const publicKey = bytesOf(fields?.key, 32);
  const [signatureByOld, signatureByNew] = [bytesOf(fields?.by_old, 64), bytesOf(fields?.by_new, 64)];
  if (!publicKey || !signatureByOld || !signatureByNew) return refused('FRAME_MALFORMED');
  return decoded({ publicKey, signatureByOld, signatureByNew });
}

/** The answer to `rotate`: type `response`, with `reply_to`. A rotation that is refused is answered by an error. */
export function encodeRotated(): object {
  return { op: 'rotated' };
}

export function isRotated(payload: unknown): boolean {
  return payloadOf(payload, 'rotated') !== null;
}

export function encodeErrorNotice({ code, message, retryable, retryAfterMs }: ErrorNotice): object {
  return { code, message, retryable, retry_after: retryAfterMs ?? undefined };
}

export function decodeErrorNotice(payload: unknown): Decoded<ErrorNotice> {
  if (!isRecord(payload)) return refused('FRAME_MALFORMED');
  const { code, message, retryable, retry_after: retryAfterMs = null } = payload;
  if (!isIdentifier(code) || typeof message !== 'string' || typeof retryable !== 'boolean')
    return refused('FRAME_MALFORMED');
  if (retryAfterMs !== null && !isCount(retryAfterMs)) return refused('FRAME_MALFORMED');
  return decoded({ code, message, retryable, retryAfterMs });
}

/** The name of what a payload on the session channel is; null where it has none. */
export function sessionOperation(payload: unknown): string | null {
  return isRecord(payload) && typeof payload.op === 'string' ? payload.op : null;
}

function payloadOf(payload: unknown, op: string): Readonly<Record<string, unknown>> | null {
  return isRecord(payload) && payload.op === op ? payload : null;
}

function keyFields({ current, next }: GatewayKeys): object {
  return { current: encodeBase64Url(current), next: next && encodeBase64Url(next) };
}

function decodeKeys(value: unknown): GatewayKeys | null {
  if (!isRecord(value)) return null;
  const current = bytesOf(value.current, 32);
  const next = value.next === null ? null : bytesOf(value.next, 32);
  return current && (next || value.next === null) ? { current, next } : null;
}

function decodeLimits(value: unknown): SessionLimits | null {
  if (!isRecord(value)) return null;
  const { max_record: maxRecordBytes, max_batch: maxBatchMessages } = value;
  const { max_in_flight: maxInFlightMessages, ack_timeout: ackTimeoutMs } = value;
  if (!isPositive(maxRecordBytes) || !isPositive(maxBatchMessages)) return null;
  if (!isPositive(maxInFlightMessages) || !isPositive(ackTimeoutMs)) return null;
  return { maxRecordBytes, maxBatchMessages, maxInFlightMessages, ackTimeoutMs };
}

function bytesOf(field: unknown, length: number): Uint8Array | null {
  const bytes = typeof field === 'string' ? decodeBase64Url(field) : null;
  return bytes?.length === length ? bytes : null;
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isPositive(value: unknown): value is number {
  return isCount(value) && value > 0;
}
