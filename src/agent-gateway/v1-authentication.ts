import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { AegisError } from '../errors.ts';
import type { AuthenticatedV1Agent } from '../fleet/admission.ts';
import type { CryptoSuite } from './crypto/suite.ts';
import { isIdentifier } from './wire/text.ts';
import { decodeFirstFrame, type V1Dialect } from './wire/v1.ts';

/** What the upgrade request said of the agent (agent-wire, "Common to both"). Header names come in lower case from Node. */
export interface V1Headers {
  readonly agentRef: string | null;
  /** As sent, also where it can be no key; null where it was not sent. */
  readonly publicKey: string | null;
  readonly uid: string | null;
  readonly bootstrapToken: string | null;
}

export function readV1Headers(headers: IncomingHttpHeaders): V1Headers {
  return {
    agentRef: header(headers, 'x-agent-id'),
    publicKey: headers['x-agent-public-key']?.toString() ?? null,
    uid: header(headers, 'x-agent-uid'),
    bootstrapToken: header(headers, 'x-bootstrap-token'),
  };
}

/** The first frame's claim, once it has been found true, and the dialect to answer in. */
export interface V1Claim {
  readonly dialect: V1Dialect;
  readonly publicKeyBytes: Uint8Array;
  /** Checks signatures of this key. */
  readonly verify: (message: Uint8Array, signature: Uint8Array) => boolean;
  readonly agent: AuthenticatedV1Agent;
}

/** The claim is false; `dialect` tells how to say so. */
export class V1ClaimRefused extends AegisError {
  readonly dialect: V1Dialect;

  constructor(dialect: V1Dialect, code: AegisError['code']) {
    super(code);
    this.dialect = dialect;
  }
}

/**
 * Checks the first frame: its form, the headers, the clock, the signature. Whether the nonce is new and the agent may
 * come in is the fleet's to say. Throws V1ClaimRefused.
 */
export function checkV1Claim(
  text: string,
  headers: V1Headers,
  context: {
    readonly suite: CryptoSuite;
    readonly nowMs: number;
    readonly clockSkewMs: number;
    readonly remoteAddress: string | null;
  },
): V1Claim {
  const { dialect, request: decoded } = decodeFirstFrame(text);
  if (!decoded.ok) throw new V1ClaimRefused(dialect, decoded.code);
  const request = decoded.value;
  if (headers.agentRef === null || (headers.publicKey !== null && headers.publicKey !== request.publicKey))
    throw new V1ClaimRefused(dialect, 'AUTH_IDENTITY_MISMATCH');
  if (Math.abs(context.nowMs - request.timestampMs) > context.clockSkewMs)
    throw new V1ClaimRefused(dialect, 'AUTH_CLOCK_SKEW');
  const verify = context.suite.verifier(request.publicKeyBytes);
  if (!verify(request.signedBytes, request.signature)) throw new V1ClaimRefused(dialect, 'AUTH_SIGNATURE_INVALID');
  return {
    dialect,
    // A copy: a slice would keep the whole pool alive that Node's decoder took it from.
    publicKeyBytes: Uint8Array.from(request.publicKeyBytes),
    verify,
    agent: {
      name: request.agentId,
      publicKey: request.publicKey,
      headerRef: headers.agentRef,
      uid: headers.uid ?? headers.agentRef,
      bootstrapToken: headers.bootstrapToken,
      nonce: request.nonce,
      // From then on the check of the time alone refuses the same request.
      nonceLifeMs: request.timestampMs + context.clockSkewMs + 1_000 - context.nowMs,
      attemptId: randomUUID(),
      protocol: 'v1',
      dialect,
      remoteAddress: context.remoteAddress,
    },
  };
}

/** An agent's name may be any text, which Go's client sends in UTF-8; Node reads headers as Latin-1. */
function header(headers: IncomingHttpHeaders, name: string): string | null {
  const value = headers[name];
  const text = typeof value === 'string' ? Buffer.from(value, 'latin1').toString('utf8') : null;
  return isIdentifier(text) ? text : null;
}
