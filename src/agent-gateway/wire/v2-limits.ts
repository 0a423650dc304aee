/** The numbers of protocol v2 (docs/PROTOCOL.md): what does not depend on a gateway's configuration. */

/** The WebSocket subprotocol that chooses v2. */
export const v2Subprotocol = 'aegis.v2';

/** From the upgrade to the end of the handshake; the close of a handshake that failed comes at the end of it, too. */
export const handshakeTimeoutMs = 5_000;

/** Longest text frame of the handshake, in UTF-16 code units; the frames hold ASCII alone. */
export const maxHandshakeFrameLength = 16_384;

/** After this many records a sender must change its key. */
export const maxRecordsPerGeneration = 2 ** 20;

/** The age at which a sender must change its key, where its configuration says nothing shorter. */
export const maxGenerationMs = 3_600_000;

/** What a gateway tells in M4 unless it is configured otherwise. A record holds a payload of 256 KiB and what stands around it. */
export const defaultSessionLimits = {
  maxRecordBytes: 320 * 1024,
  maxBatchMessages: 256,
  maxInFlightMessages: 1_024,
  ackTimeoutMs: 30_000,
} as const;

export const defaultHeartbeatMs = 30_000;

/** How v2 links end; those below 4000 are RFC 6455's own. */
export const v2CloseCodes = {
  /** A frame is longer than `max_record`. */
  frameTooLong: 1009,
  /** The gateway restarts: come back after a random delay. */
  restart: 1012,
  /** Overload: come back later. */
  shed: 1013,
  handshakeFailed: 4001,
  revoked: 4003,
  superseded: 4004,
  disconnected: 4005,
  dead: 4008,
  badRecord: 4009,
  sessionEnded: 4010,
  tooFast: 4029,
} as const;
