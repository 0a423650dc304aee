import type { CryptoSuite, SigningKey } from '../../src/agent-gateway/crypto/suite.ts';
import { hashM1, hashM2, hashProof, KeySchedule } from '../../src/agent-gateway/crypto/v2-schedule.ts';
import { concatBytes, lengthPrefixed, utf8 } from '../../src/agent-gateway/wire/bytes.ts';
import type { Decoded } from '../../src/agent-gateway/wire/errors.ts';
import {
  decodeM1,
  decodeM2,
  decodeM3,
  encodeM1,
  encodeM1Body,
  encodeM2,
  encodeM2Body,
  encodeM3,
  type M1,
  type M2,
} from '../../src/agent-gateway/wire/v2-handshake.ts';

/**
 * Both ends of the handshake as an attacker runs them: by the formulas of docs/PROTOCOL.md, but with whatever it likes in the
 * place of each part.
 */

export function sound<Value>(value: Decoded<Value>): Value {
  if (!value.ok) throw new Error(value.code);
  return value.value;
}

export interface ProofParts {
  readonly publicKey: Uint8Array;
  readonly signature: Uint8Array;
}

/** An M1 with an ephemeral key of the attacker's, and what it needs to go on. */
export function attackingM1(suite: CryptoSuite, fields: Partial<M1> = {}) {
  const ephemeral = suite.generateAgreementKey();
  const body = encodeM1Body({
    ...{ ephemeral: ephemeral.publicKey, nonce: suite.randomBytes(32), channelBinding: 'none', caps: [] },
    ...fields,
  });
  return { m1: encodeM1(body), ephemeral, h1: hashM1(suite, '', body) };
}

/** What an attacker knows once the gateway has answered its M1: all keys of that handshake. */
export function attackerAfterM2(suite: CryptoSuite, { ephemeral, h1 }: ReturnType<typeof attackingM1>, m2Text: string) {
  const m2 = sound(decodeM2(m2Text));
  const h2 = hashM2(suite, h1, m2.body, null);
  const sharedSecret = ephemeral.sharedSecret(m2.ephemeral);
  if (!sharedSecret) throw new Error('no shared secret');
  const schedule = new KeySchedule(suite, h2, sharedSecret);
  return { m2, h2, h3: hashProof(suite, h2, m2.proof), schedule };
}

/** An M3 of any parts, with a MAC that is right for them unless another is given. */
export function attackingM3(
  { schedule, h3 }: Pick<ReturnType<typeof attackerAfterM2>, 'schedule' | 'h3'>,
  parts: ProofParts & { readonly identity: Uint8Array; readonly mac?: Uint8Array },
): string {
  const prefixed = lengthPrefixed(parts.identity);
  const mac = parts.mac ?? schedule.finished('agent', h3, prefixed, parts.publicKey, parts.signature);
  return encodeM3(schedule.sealProof('agent', h3, concatBytes(prefixed, parts.publicKey, parts.signature, mac)));
}

/** What an honest agent signs in M3. */
export function agentSigned(
  suite: CryptoSuite,
  h3: Uint8Array,
  identity: Uint8Array,
  publicKey: Uint8Array,
): Uint8Array {
  return concatBytes(utf8('aegis2/agent\0'), h3, suite.sha256(identity), publicKey);
}

/** An M2 with an ephemeral key of the attacker's, in answer to an agent's M1, with any parts in its proof. */
export function attackingM2(
  suite: CryptoSuite,
  m1Text: string,
  fields: Pick<M2, 'keyId'> & Partial<M2>,
  partsOf: (h2: Uint8Array) => ProofParts & { readonly mac?: Uint8Array },
): string {
  return luringM2(suite, m1Text, fields, partsOf).m2;
}

/** The same, with what it takes to read the agent's answer. */
export function luringM2(
  suite: CryptoSuite,
  m1Text: string,
  fields: Pick<M2, 'keyId'> & Partial<M2>,
  partsOf: (h2: Uint8Array) => ProofParts & { readonly mac?: Uint8Array },
) {
  const m1 = sound(decodeM1(m1Text));
  const ephemeral = suite.generateAgreementKey();
  const sharedSecret = ephemeral.sharedSecret(m1.ephemeral);
  if (!sharedSecret) throw new Error('no shared secret');
  const body = encodeM2Body({
    ...{ ephemeral: ephemeral.publicKey, nonce: suite.randomBytes(32), sessionId: suite.randomBytes(16), caps: [] },
    ...fields,
  });
  const h2 = hashM2(suite, hashM1(suite, '', m1.body), body, null);
  const schedule = new KeySchedule(suite, h2, sharedSecret);
  const { publicKey, signature, mac = schedule.finished('gateway', h2, publicKey, signature) } = partsOf(h2);
  const proof = schedule.sealProof('gateway', h2, concatBytes(publicKey, signature, mac));
  return { m2: encodeM2(body, proof), schedule, h3: hashProof(suite, h2, proof) };
}

/** What an honest gateway signs in M2. */
export function gatewaySigned(h2: Uint8Array, publicKey: Uint8Array): Uint8Array {
  return concatBytes(utf8('aegis2/server\0'), h2, publicKey);
}

/** A key that claims to be another. */
export function claiming(publicKey: Uint8Array, key: SigningKey): SigningKey {
  return { publicKey, sign: (message) => key.sign(message) };
}

/** The same frame with some of the fields of its body replaced; a field of undefined is left out. */
export function swapped(frame: string, name: 'm1' | 'm2', fields: Readonly<Record<string, unknown>>): string {
  const outer: Record<string, string> = JSON.parse(frame);
  const body: object = JSON.parse(Buffer.from(outer[name] ?? '', 'base64url').toString());
  const changed = Buffer.from(JSON.stringify({ ...body, ...fields })).toString('base64url');
  return JSON.stringify({ ...outer, [name]: changed });
}

/** The same frame with its proof, A2 or A3, changed. */
export function withProof(frame: string, change: (proof: Uint8Array) => Uint8Array): string {
  const outer: Record<string, string> = JSON.parse(frame);
  if ('m3' in outer) return encodeM3(change(sound(decodeM3(frame))));
  const m2 = sound(decodeM2(frame));
  return encodeM2(m2.body, change(m2.proof));
}
