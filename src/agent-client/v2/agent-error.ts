/**
 * Why the client refuses something, or gives it up:
 * `OPTIONS_INVALID` · `REPORT_INVALID` what no gateway could take · `OUTBOX_FULL` · `AGENT_CLOSED` · `RECORD_REFUSED` the gateway
 * ended two links at this message · `STORE_FAILED` nothing could be written · `STORE_CORRUPT` · `STORE_IN_USE` by another
 * process. A refusal of the gateway's has the gateway's own code.
 */
export type AgentErrorCode =
  | 'OPTIONS_INVALID'
  | 'REPORT_INVALID'
  | 'OUTBOX_FULL'
  | 'AGENT_CLOSED'
  | 'RECORD_REFUSED'
  | 'STORE_FAILED'
  | 'STORE_CORRUPT'
  | 'STORE_IN_USE';

export class AgentError extends Error {
  override readonly name = 'AgentError';
  /** An AgentErrorCode, or a code of the gateway's error catalogue. */
  readonly code: string;

  constructor(code: string, detail: string, options?: ErrorOptions) {
    super(`${code}: ${detail}`, options);
    this.code = code;
  }
}
