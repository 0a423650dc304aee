/** The handshake of protocol v1, from the first frame of a connection to the last answer. */
import { AgentFailure } from './agent-failure.ts';
import { type AgentIds, unixSeconds } from './agent-ids.ts';
import type { AgentClock } from './clock.ts';
import type { Dialect } from './habits.ts';
import type { AgentIdentity, Registration } from './identity.ts';
import type { Link } from './link.ts';
import {
  type Answer,
  type AuthenticationGrant,
  readEnvelopedGrant,
  readHandoffGrant,
  readRegistrationChallenge,
  readRegistrationGrant,
} from './v1-answers.ts';
import {
  authenticationRequest,
  encodeEnvelopedAuthentication,
  encodeHandoffAuthentication,
  encodeRegistration,
  encodeRegistrationComplete,
  type RegistrationFacts,
} from './v1-frames.ts';

export interface HandshakeParts {
  readonly dialect: Dialect;
  readonly identity: AgentIdentity;
  readonly clock: AgentClock;
  readonly ids: AgentIds;
  readonly randomBytes: (length: number) => Uint8Array;
  readonly answerTimeoutMs: number;
}

const authenticationNonceBytes = 16;
/** The agent prints this many bytes of a token without looking at its length. */
const printedTokenBytes = 20;

/**
 * Authenticates: one frame out, one frame in. Rejects with an AgentFailure: `ANSWER_TIMED_OUT`, `ANSWER_BROKEN`,
 * `AUTH_REFUSED`, `LINK_CLOSED`, or `CRASHED` when the session token is too short to be printed.
 */
export async function authenticate(link: Link, parts: HandshakeParts): Promise<AuthenticationGrant> {
  const { dialect, identity, clock, ids, randomBytes } = parts;
  const request = authenticationRequest({
    key: identity.key,
    agentId: identity.agentId,
    timestamp: unixSeconds(clock),
    nonce: randomBytes(authenticationNonceBytes),
  });
  const isBare = dialect === 'handoff';
  const frame = isBare
    ? encodeHandoffAuthentication(request)
    : encodeEnvelopedAuthentication(ids.stamped('auth'), request);
  const answer = await link.ask(frame, parts.answerTimeoutMs);
  const grant = expectAnswer(isBare ? readHandoffGrant(answer) : readEnvelopedGrant(answer));
  crashOnShortToken('session_token', grant.sessionToken);
  return grant;
}

/** Registers: two frames out, two in, each taken for the answer whatever it is. Rejects as `authenticate` does. */
export async function register(link: Link, parts: HandshakeParts, facts: RegistrationFacts): Promise<Registration> {
  const { identity, clock, ids, answerTimeoutMs } = parts;
  const init = encodeRegistration(ids.stamped('reg_init'), unixSeconds(clock), facts);
  const challenge = expectAnswer(readRegistrationChallenge(await link.ask(init, answerTimeoutMs)));
  const complete = encodeRegistrationComplete({
    id: ids.stamped('reg_complete'),
    timestamp: unixSeconds(clock),
    key: identity.key,
    registrationId: challenge.registrationId,
    nonce: challenge.nonce,
    serverTime: challenge.serverTime,
    hostId: facts.host_id,
  });
  return expectAnswer(readRegistrationGrant(await link.ask(complete, answerTimeoutMs)));
}

/** Throws `CRASHED` for a token of fewer than 20 bytes: the agent slices it without looking, and its process dies. */
export function crashOnShortToken(name: 'session_token' | 'bootstrap_token', token: string): void {
  if (Buffer.byteLength(token, 'utf8') >= printedTokenBytes) return;
  throw new AgentFailure('CRASHED', `${name} is shorter than ${printedTokenBytes} bytes`);
}

function expectAnswer<Value>(answer: Answer<Value>): Value {
  if (answer.ok) return answer.value;
  throw new AgentFailure(answer.refused ? 'AUTH_REFUSED' : 'ANSWER_BROKEN', answer.reason);
}
