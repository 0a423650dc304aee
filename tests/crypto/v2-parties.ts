import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { nobleCrypto } from '../../src/agent-gateway/crypto/noble.ts';
import type { CryptoSuite } from '../../src/agent-gateway/crypto/suite.ts';
import { type InitiatorOptions, V2Initiator } from '../../src/agent-gateway/crypto/v2-initiator.ts';
import { type ProvenAgent, type ResponderOptions, V2Responder } from '../../src/agent-gateway/crypto/v2-responder.ts';
import { keyFingerprint } from '../../src/agent-gateway/crypto/v2-schedule.ts';
import type { V2Session } from '../../src/agent-gateway/crypto/v2-session.ts';
import type { HandshakeStep } from '../../src/agent-gateway/crypto/v2-steps.ts';
import { decodeUtf8, utf8 } from '../../src/agent-gateway/wire/bytes.ts';
import type { V2Identity } from '../../src/agent-gateway/wire/v2-identity.ts';

/** The two ends of v2 handshakes, without a socket between them. */

export const suites = [
  { name: 'native', suite: nativeCrypto, other: nobleCrypto },
  { name: 'noble', suite: nobleCrypto, other: nativeCrypto },
];

/** The same keys on either suite. */
export function keysOf(suite: CryptoSuite) {
  return {
    agentKey: suite.signingKeyFromSeed(new Uint8Array(32).fill(1)),
    gatewayKey: suite.signingKeyFromSeed(new Uint8Array(32).fill(2)),
    otherKey: suite.signingKeyFromSeed(new Uint8Array(32).fill(3)),
  };
}

export const identity: V2Identity = { agentId: 'db-7.example.net', orgId: null, enroll: null };

export function initiator(suite: CryptoSuite, options: Partial<InitiatorOptions> = {}): V2Initiator {
  const keys = keysOf(suite);
  const pins = [keyFingerprint(suite, keys.gatewayKey.publicKey)];
  return new V2Initiator({ suite, signingKey: keys.agentKey, identity, pins, ...options });
}

export function responder(suite: CryptoSuite, options: Partial<ResponderOptions> = {}): V2Responder {
  return new V2Responder({ suite, signingKey: keysOf(suite).gatewayKey, ...options });
}

/** What a step gave; throws its cause where it failed. */
export function taken<Value>(step: HandshakeStep<Value>): Value {
  if (!step.ok) throw new Error(step.cause);
  return step.value;
}

export interface Established {
  readonly agent: V2Session;
  readonly gateway: V2Session;
  readonly proven: ProvenAgent;
  readonly frames: { readonly m1: string; readonly m2: string; readonly m3: string };
}

export function establish(
  agentSuite: CryptoSuite,
  gatewaySuite: CryptoSuite = agentSuite,
  options: { readonly agent?: Partial<InitiatorOptions>; readonly gateway?: Partial<ResponderOptions> } = {},
): Established {
  const agent = initiator(agentSuite, options.agent);
  const gateway = responder(gatewaySuite, options.gateway);
  const m2 = taken(gateway.takeM1(agent.m1));
  const { m3, session } = taken(agent.takeM2(m2));
  const proven = taken(gateway.takeM3(m3));
  return { agent: session, gateway: proven.session, proven, frames: { m1: agent.m1, m2, m3 } };
}

export const json = (value: unknown): Uint8Array => utf8(JSON.stringify(value));

/** The JSON that a session opens of a frame, or why it does not. */
export function opened(session: V2Session, frame: Uint8Array): unknown {
  const record = session.opener.open(frame);
  return record.ok ? JSON.parse(decodeUtf8(record.json) ?? '') : record.cause;
}
