/**
 * What can go wrong with an agent's connection:
 * `DIAL_REFUSED` no upgrade (with `httpStatus` where there was an answer) · `DIAL_TIMED_OUT` · `ANSWER_TIMED_OUT` no
 * answer during the handshake · `ANSWER_BROKEN` a frame that is not the expected answer · `AUTH_REFUSED` · `LINK_CLOSED`
 * by the other side (with `closeCode`) · `CRASHED` on a token shorter than 20 bytes · `NOT_CONNECTED` · `AGENT_CLOSED`.
 */
export type AgentFailureCode =
  | 'DIAL_REFUSED'
  | 'DIAL_TIMED_OUT'
  | 'ANSWER_TIMED_OUT'
  | 'ANSWER_BROKEN'
  | 'AUTH_REFUSED'
  | 'LINK_CLOSED'
  | 'CRASHED'
  | 'NOT_CONNECTED'
  | 'AGENT_CLOSED';

export class AgentFailure extends Error {
  override readonly name = 'AgentFailure';
  readonly code: AgentFailureCode;
  readonly httpStatus: number | null;
  readonly closeCode: number | null;

  constructor(
    code: AgentFailureCode,
    detail: string,
    facts: { readonly httpStatus?: number | undefined; readonly closeCode?: number } = {},
  ) {
    super(`${code}: ${detail}`);
    this.code = code;
    this.httpStatus = facts.httpStatus ?? null;
    this.closeCode = facts.closeCode ?? null;
  }
}
