import { concatBytes, lengthPrefixed, utf8 } from '../wire/bytes.ts';
import {
  type CryptoSuite,
  ed25519PublicKeyBytes,
  ed25519SignatureBytes,
  type SigningKey,
  sha256Bytes,
} from './suite.ts';
import type { KeySchedule } from './v2-schedule.ts';

/** A2 and A3: how each side proves who it is, SIGMA's sign-and-MAC, sealed (docs/PROTOCOL.md, "Handshake"). */

type Verify = (message: Uint8Array, signature: Uint8Array) => boolean;

const gatewayDomain = utf8('aegis2/server\0');
const agentDomain = utf8('aegis2/agent\0');
const proofTailBytes = ed25519PublicKeyBytes + ed25519SignatureBytes + sha256Bytes;

/** Why a proof does not hold; told to nobody outside. */
export type ProofCause = 'not-opened' | 'malformed' | 'wrong-mac' | 'wrong-signature';

export type ProofCheck =
  | { readonly ok: true; readonly value: Proven }
  | { readonly ok: false; readonly cause: ProofCause };

export interface Proven {
  readonly publicKey: Uint8Array;
  readonly verify: Verify;
  /** LP(identity) of an agent, nothing of a gateway. */
  readonly identity: Uint8Array;
}

/** A2 = seal(…, aad h2, G ‖ sigG ‖ HMAC(…, h2 ‖ G ‖ sigG)) */
export function proveGateway(schedule: KeySchedule, h2: Uint8Array, signingKey: SigningKey): Uint8Array {
  const { publicKey } = signingKey;
  const signature = signingKey.sign(gatewaySigned(h2, publicKey));
  const mac = schedule.finished('gateway', h2, publicKey, signature);
  return schedule.sealProof('gateway', h2, concatBytes(publicKey, signature, mac));
}

/** A3 = seal(…, aad h3, LP(identity) ‖ A ‖ sigA ‖ HMAC(…, h3 ‖ LP(identity) ‖ A ‖ sigA)) */
export function proveAgent(
  suite: CryptoSuite,
  schedule: KeySchedule,
  h3: Uint8Array,
  agent: { readonly signingKey: SigningKey; readonly identity: Uint8Array },
): Uint8Array {
  const { publicKey } = agent.signingKey;
  const signature = agent.signingKey.sign(agentSigned(suite, h3, agent.identity, publicKey));
  const prefixed = lengthPrefixed(agent.identity);
  const mac = schedule.finished('agent', h3, prefixed, publicKey, signature);
  const plaintext = concatBytes(prefixed, publicKey, signature, mac);
  try {
    return schedule.sealProof('agent', h3, plaintext);
  } finally {
    plaintext.fill(0);
    prefixed.fill(0);
  }
}

/** The gateway's key, proven; whether it is one that is pinned is for the caller to say. */
export function checkGateway(suite: CryptoSuite, schedule: KeySchedule, h2: Uint8Array, proof: Uint8Array): ProofCheck {
  const plaintext = schedule.openProof('gateway', h2, proof);
  if (!plaintext) return fails('not-opened');
  if (plaintext.length !== proofTailBytes) return fails('malformed');
  const { publicKey, signature, mac } = splitTail(plaintext);
  if (!suite.isEqual(mac, schedule.finished('gateway', h2, publicKey, signature))) return fails('wrong-mac');
  const verify = suite.verifier(publicKey);
  if (!verify(gatewaySigned(h2, publicKey), signature)) return fails('wrong-signature');
  return { ok: true, value: { publicKey, verify, identity: new Uint8Array() } };
}

/** The agent's key and the bytes of its identity, proven. */
export function checkAgent(suite: CryptoSuite, schedule: KeySchedule, h3: Uint8Array, proof: Uint8Array): ProofCheck {
  const plaintext = schedule.openProof('agent', h3, proof);
  if (!plaintext) return fails('not-opened');
  const identityBytes = plaintext.length - proofTailBytes - 4;
  if (identityBytes < 0) return fails('malformed');
  const prefixed = plaintext.subarray(0, 4 + identityBytes);
  if (new DataView(prefixed.buffer, prefixed.byteOffset).getUint32(0) !== identityBytes) return fails('malformed');
  const identity = prefixed.subarray(4);
  const { publicKey, signature, mac } = splitTail(plaintext.subarray(prefixed.length));
  if (!suite.isEqual(mac, schedule.finished('agent', h3, prefixed, publicKey, signature))) return fails('wrong-mac');
  const verify = suite.verifier(publicKey);
  if (!verify(agentSigned(suite, h3, identity, publicKey), signature)) return fails('wrong-signature');
  return { ok: true, value: { publicKey, verify, identity } };
}

function fails(cause: ProofCause): ProofCheck {
  return { ok: false, cause };
}

function gatewaySigned(h2: Uint8Array, publicKey: Uint8Array): Uint8Array {
  return concatBytes(gatewayDomain, h2, publicKey);
}

function agentSigned(suite: CryptoSuite, h3: Uint8Array, identity: Uint8Array, publicKey: Uint8Array): Uint8Array {
  return concatBytes(agentDomain, h3, suite.sha256(identity), publicKey);
}

/** The key is a copy: it outlives the rest. */
function splitTail(tail: Uint8Array): { publicKey: Uint8Array; signature: Uint8Array; mac: Uint8Array } {
  const signatureEnd = ed25519PublicKeyBytes + ed25519SignatureBytes;
  return {
    publicKey: new Uint8Array(tail.subarray(0, ed25519PublicKeyBytes)),
    signature: tail.subarray(ed25519PublicKeyBytes, signatureEnd),
    mac: tail.subarray(signatureEnd),
  };
}
