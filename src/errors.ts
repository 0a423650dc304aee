/**
 * The one error catalogue: every code that consumers, agents and callers of REST can meet, with its safe text, its
 * HTTP status, the WebSocket close code where it ends a connection, and whether trying again can help.
 * `docs/ERRORS.md` lists it; a test holds the two together.
 */

interface CatalogueEntry {
  /** Safe to show to anyone: never holds input, secrets or internals. */
  readonly text: string;
  readonly httpStatus: number;
  /** Where the error ends an agent's or a consumer's WebSocket. */
  readonly closeCode?: number;
  /** Whether the same request may succeed later, unchanged. */
  readonly retryable: boolean;
}

export const errorCatalogue = {
  // Consumers
  UNAUTHENTICATED: { text: 'Credentials are missing or not valid', httpStatus: 401, closeCode: 4403, retryable: false },
  FORBIDDEN: { text: 'These credentials do not permit this', httpStatus: 403, retryable: false },
  BAD_USER_INPUT: { text: 'The input is not valid', httpStatus: 400, retryable: false },
  GRAPHQL_PARSE_FAILED: { text: 'The document is not GraphQL', httpStatus: 400, retryable: false },
  GRAPHQL_VALIDATION_FAILED: { text: 'The document does not fit the schema', httpStatus: 400, retryable: false },
  PERSISTED_QUERY_NOT_FOUND: { text: 'No document with this id', httpStatus: 400, retryable: false },
  PERSISTED_QUERY_NOT_SUPPORTED: { text: 'No documents are known by an id here', httpStatus: 400, retryable: false },
  DOCUMENT_NOT_ALLOWED: { text: 'Only documents that are on the list run here', httpStatus: 403, retryable: false },
  QUERY_TOO_COMPLEX: { text: 'The document asks for too much', httpStatus: 400, retryable: false },
  RATE_LIMITED: { text: 'Too many requests; come back later', httpStatus: 429, closeCode: 1013, retryable: true },
  TOO_MANY_OPERATIONS: { text: 'Too many operations run on this socket', httpStatus: 429, retryable: true },
  TOO_MANY_STREAMS: {
    text: 'Too many connections or subscriptions at once; end some, or come back later',
    httpStatus: 429,
    closeCode: 1013,
    retryable: true,
  },
  NOT_FOUND: { text: 'No such object', httpStatus: 404, retryable: false },
  METHOD_NOT_ALLOWED: { text: 'Method not allowed', httpStatus: 405, retryable: false },
  REQUEST_MALFORMED: { text: 'The request is not sound HTTP', httpStatus: 400, retryable: false },
  REQUEST_TIMEOUT: { text: 'The request took too long to arrive', httpStatus: 408, retryable: true },
  HEADERS_TOO_LARGE: { text: 'The headers are too many or too large', httpStatus: 431, retryable: false },
  PAYLOAD_TOO_LARGE: { text: 'The body is too large', httpStatus: 413, retryable: false },
  CURSOR_INVALID: { text: 'The cursor is not one of this stream', httpStatus: 400, retryable: false },
  CURSOR_EXPIRED: { text: 'The events after this cursor are past their retention', httpStatus: 410, retryable: false },
  INTERNAL_SERVER_ERROR: { text: 'Something went wrong here', httpStatus: 500, retryable: true },
  UNAVAILABLE: { text: 'The gateway cannot serve this now', httpStatus: 503, closeCode: 1012, retryable: true },
  SLOW_CONSUMER: {
    text: 'The subscriber reads too slowly; resume from its last cursor',
    httpStatus: 503,
    closeCode: 1013,
    retryable: true,
  },

  // Agents, as consumers name them
  AGENT_NOT_FOUND: { text: 'No such agent', httpStatus: 404, retryable: false },
  AGENT_NAME_AMBIGUOUS: { text: 'Several agents have this name; use the uid', httpStatus: 409, retryable: false },
  AGENT_REVOKED: { text: 'The agent is revoked', httpStatus: 403, closeCode: 4003, retryable: false },
  AGENT_KEY_NOT_PENDING: { text: 'No key with this fingerprint waits for approval', httpStatus: 409, retryable: false },

  // Messages
  MESSAGE_NOT_FOUND: { text: 'No such message', httpStatus: 404, retryable: false },
  MESSAGE_FINAL: { text: 'The message is already in a final state', httpStatus: 409, retryable: false },
  CHANNEL_UNKNOWN: { text: 'No such channel', httpStatus: 400, retryable: false },
  CHANNEL_CLOSED: { text: 'An operator has switched this channel off', httpStatus: 409, retryable: false },
  QUEUE_FULL: { text: 'Too many messages wait for this agent', httpStatus: 429, retryable: true },
  IDEMPOTENCY_CONFLICT: {
    text: 'The idempotency key was used with another body',
    httpStatus: 422,
    retryable: false,
  },

  // Commands, as agents of protocol v2 answer them
  COMMAND_EXPIRED: { text: 'Its time was up before the agent could begin it', httpStatus: 410, retryable: false },
  COMMAND_INTERRUPTED: { text: 'The agent stopped while it carried this out', httpStatus: 500, retryable: false },
  COMMAND_FAILED: { text: 'The agent could not carry this out', httpStatus: 500, retryable: false },

  // Registration, as the earlier HTTP API words it (contract/rest.md)
  BAD_PUBKEY: { text: 'bad pubkey', httpStatus: 400, retryable: false },
  BAD_SIGNATURE: { text: 'bad signature', httpStatus: 400, retryable: false },
  SIGNATURE_VERIFY_FAILED: { text: 'signature verify failed', httpStatus: 401, retryable: false },
  UNKNOWN_REGISTRATION: { text: 'unknown registration', httpStatus: 404, retryable: false },
  REGISTRATION_CLOSED: { text: 'registration closed', httpStatus: 403, closeCode: 4001, retryable: false },
  KEY_CONFLICT: { text: 'key conflict', httpStatus: 409, closeCode: 4001, retryable: false },

  // The agent endpoint: before and during authentication
  ORIGIN_REFUSED: { text: 'Browsers may not connect here', httpStatus: 403, retryable: false },
  CLIENT_CERTIFICATE_REQUIRED: {
    text: 'Agents need a certificate of their own here',
    httpStatus: 403,
    retryable: false,
  },
  PROTOCOL_UNSUPPORTED: { text: 'No such agent protocol here', httpStatus: 400, retryable: false },
  PROTOCOL_V1_OFF: { text: 'Protocol v1 is switched off', httpStatus: 403, retryable: false },
  ADMISSION_BUSY: { text: 'Too many agents connect at once; come back later', httpStatus: 503, retryable: true },
  AUTH_TIMEOUT: { text: 'No authentication in time', httpStatus: 401, closeCode: 4001, retryable: true },
  AUTH_MALFORMED: {
    text: 'The authentication request is malformed',
    httpStatus: 400,
    closeCode: 4001,
    retryable: false,
  },
  AUTH_IDENTITY_MISMATCH: {
    text: 'The headers do not name the agent that authenticates',
    httpStatus: 401,
    closeCode: 4001,
    retryable: false,
  },
  AUTH_CLOCK_SKEW: { text: 'The clock differs too much', httpStatus: 401, closeCode: 4001, retryable: true },
  AUTH_NONCE_REUSED: { text: 'The nonce was used before', httpStatus: 401, closeCode: 4001, retryable: true },
  AUTH_SIGNATURE_INVALID: { text: 'The signature is not valid', httpStatus: 401, closeCode: 4001, retryable: false },
  HANDSHAKE_FAILED: { text: 'The handshake failed', httpStatus: 401, closeCode: 4001, retryable: true },

  AGENT_V1_REFUSED: {
    text: 'The agent speaks protocol v2 now; v1 is refused until its key is reset',
    httpStatus: 403,
    closeCode: 4001,
    retryable: false,
  },
  KEY_USED_IN_V1: {
    text: 'A key that was used in protocol v1 proves nothing in v2',
    httpStatus: 403,
    closeCode: 4001,
    retryable: false,
  },

  // The agent endpoint: frames after authentication, dropped and counted while the link stays open
  FRAME_TOO_LARGE: { text: 'The frame is too large', httpStatus: 413, closeCode: 1009, retryable: false },
  FRAME_NOT_TEXT: { text: 'Frames of v1 are text', httpStatus: 400, retryable: false },
  FRAME_NOT_UTF8: { text: 'The frame is not UTF-8', httpStatus: 400, closeCode: 1007, retryable: false },
  FRAME_MALFORMED: { text: 'The frame is not a message', httpStatus: 400, retryable: false },
  FRAME_ID_INVALID: { text: 'The message id is empty, too long or not text', httpStatus: 400, retryable: false },
  FRAME_CHANNEL_UNKNOWN: { text: 'No such channel', httpStatus: 400, retryable: false },
  FRAME_CHANNEL_FOREIGN: { text: 'The channel belongs to another agent', httpStatus: 403, retryable: false },
  FRAME_CHANNEL_CLOSED: { text: 'An operator has switched this channel off', httpStatus: 403, retryable: false },
  FRAME_CLOCK_SKEW: { text: 'The timestamp is too far from now', httpStatus: 400, retryable: false },
  FRAME_SIGNATURE_INVALID: { text: 'The signature is not valid', httpStatus: 401, retryable: false },
  FRAME_PAYLOAD_TOO_DEEP: { text: 'The payload is nested too deeply', httpStatus: 400, retryable: false },
  FRAME_PAYLOAD_INVALID: { text: 'The payload cannot be stored', httpStatus: 400, retryable: false },
  FRAME_REPLAYED: { text: 'This message was received before', httpStatus: 409, retryable: false },
  FRAME_ID_REUSED: { text: 'This id was used with another body', httpStatus: 409, retryable: false },
  RECORD_INVALID: { text: 'The record is not valid', httpStatus: 400, closeCode: 4009, retryable: false },

  // The end of a link
  SESSION_ENDED: { text: 'The session has ended', httpStatus: 401, closeCode: 4010, retryable: true },
  LINK_SUPERSEDED: { text: 'A newer connection took over', httpStatus: 409, closeCode: 4004, retryable: false },
  LINK_DISCONNECTED: { text: 'An operator closed the connection', httpStatus: 409, closeCode: 4005, retryable: true },
  LINK_DEAD: { text: 'Nothing was heard for too long', httpStatus: 408, closeCode: 4008, retryable: true },
  LINK_FLOODED: { text: 'Too much was sent at once', httpStatus: 429, closeCode: 4029, retryable: true },
} as const satisfies Record<string, CatalogueEntry>;

export type ErrorCode = keyof typeof errorCatalogue;

/** The catalogue's entry for a code. */
export function describeError(code: ErrorCode): CatalogueEntry {
  return errorCatalogue[code];
}

/** Anything that goes wrong in a foreseen way. `message` is safe to show; `detail` adds what the caller should mend. */
export class AegisError extends Error {
  readonly code: ErrorCode;
  /** When the same request may succeed, where that is known. */
  readonly retryAfterMs: number | null;

  constructor(code: ErrorCode, detail?: string, options?: ErrorOptions & { readonly retryAfterMs?: number }) {
    super(detail ?? describeError(code).text, options);
    this.name = 'AegisError';
    this.code = code;
    this.retryAfterMs = options?.retryAfterMs ?? null;
  }

  get httpStatus(): number {
    return describeError(this.code).httpStatus;
  }

  /** Whole seconds for `Retry-After` (RFC 9110, section 10.2.3), 1 where nothing is known. */
  get retryAfterSeconds(): number {
    return Math.max(1, Math.ceil((this.retryAfterMs ?? 0) / 1_000));
  }
}
