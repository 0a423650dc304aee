import { nobleCrypto as suite } from '../src/agent-gateway/crypto/noble.ts';

/**
 * The test vectors of protocol v2, from fixed keys: every step of docs/PROTOCOL.md computed by its formula, with nothing of
 * ours but the primitives. `tests/crypto/v2-vectors.test.ts` holds both sides of the implementation to them.
 */

const bytes = (length: number, fill: number) => new Uint8Array(length).fill(fill);
const hex = (content: Uint8Array) => Buffer.from(content).toString('hex');
const b64 = (content: Uint8Array) => Buffer.from(content).toString('base64url');
const join = (...parts: (Uint8Array | string)[]) =>
  new Uint8Array(Buffer.concat(parts.map((part) => Buffer.from(part))));
const u32 = (value: number) => join(Buffer.from([value >>> 24, value >>> 16, value >>> 8, value]));
const u64 = (value: number) => join(u32(Math.floor(value / 2 ** 32)), u32(value >>> 0));
const prefixed = (content: Uint8Array | string) => join(u32(Buffer.from(content).length), content);

const agentSeed = bytes(32, 0x11);
const gatewaySeed = bytes(32, 0x22);
const strangerSeed = bytes(32, 0x33);
const agentKey = suite.signingKeyFromSeed(agentSeed);
const gatewayKey = suite.signingKeyFromSeed(gatewaySeed);
const strangerKey = suite.signingKeyFromSeed(strangerSeed);

interface Setting {
  readonly name: string;
  readonly deploymentId: string;
  /** Null where the handshake is bound to no TLS connection. */
  readonly exporter: Uint8Array | null;
  readonly caps: readonly string[];
  readonly identity: object;
}

const settings: readonly Setting[] = [
  { name: 'plain', deploymentId: '', exporter: null, caps: [], identity: { agent_id: 'db-7.example.net' } },
  {
    ...{ name: 'bound and enrolling', deploymentId: 'production-eu', exporter: bytes(32, 0xee), caps: ['example'] },
    identity: {
      ...{ agent_id: 'db-7.example.net', org_id: 'acme' },
      enroll: {
        ...{ token: 'enrolment-token', host_id: 'db-7.example.net', agent_version: '2.0.0', machine_id_hash: 'ab12' },
        ...{ platform: { hostname: 'db-7', os: 'linux' }, network: { ip: '192.0.2.7' }, capabilities: ['events'] },
      },
    },
  },
];

/** The handshake, step by step. */
function handshake({ deploymentId, exporter, caps, identity }: Setting) {
  const [agentEphemeralKey, gatewayEphemeralKey] = [bytes(32, 0x44), bytes(32, 0x55)];
  const agentEphemeral = suite.agreementKeyFromBytes(agentEphemeralKey);
  const gatewayEphemeral = suite.agreementKeyFromBytes(gatewayEphemeralKey);
  const [agentNonce, gatewayNonce, sid] = [bytes(32, 0x66), bytes(32, 0x77), bytes(16, 0x88)];
  const G = gatewayKey.publicKey;
  const A = agentKey.publicKey;
  const kid = hex(suite.sha256(G));

  const cb = exporter ? 'tls-exporter' : 'none';
  const body1 = JSON.stringify({ v: 2, e: b64(agentEphemeral.publicKey), n: b64(agentNonce), cb, caps });
  const p = join('aegis2/handshake\0', prefixed('aegis.v2'), prefixed(deploymentId));
  const h1 = suite.sha256(p, prefixed(body1));

  const e2 = b64(gatewayEphemeral.publicKey);
  const body2 = JSON.stringify({ v: 2, e: e2, n: b64(gatewayNonce), sid: b64(sid), kid, caps });
  const h2 = suite.sha256(h1, prefixed(body2), prefixed(exporter ?? ''));
  const dh = agentEphemeral.sharedSecret(gatewayEphemeral.publicKey) ?? bytes(32, 0);
  const prk = suite.hkdfExtract(h2, dh);
  const key = (label: string) => suite.hkdfExpand(prk, join(label), 32);
  const zeroNonce = bytes(12, 0);

  const signedByGateway = join('aegis2/server\0', h2, G);
  const sigG = gatewayKey.sign(signedByGateway);
  const macG = suite.hmacSha256(key('aegis2 fin s2c'), h2, G, sigG);
  const plaintext2 = join(G, sigG, macG);
  const a2 = suite.seal(key('aegis2 hs s2c'), zeroNonce, plaintext2, h2);
  const h3 = suite.sha256(h2, prefixed(a2));

  const identityText = JSON.stringify(identity);
  const signedByAgent = join('aegis2/agent\0', h3, suite.sha256(join(identityText)), A);
  const sigA = agentKey.sign(signedByAgent);
  const macA = suite.hmacSha256(key('aegis2 fin c2s'), h3, prefixed(identityText), A, sigA);
  const plaintext3 = join(prefixed(identityText), A, sigA, macA);
  const a3 = suite.seal(key('aegis2 hs c2s'), zeroNonce, plaintext3, h3);
  const h4 = suite.sha256(h3, prefixed(a3));

  const master = suite.hkdfExpand(prk, join('aegis2 master', h4), 32);
  const recordKeys = {
    c2s: suite.hkdfExpand(master, join('aegis2 c2s'), 32),
    s2c: suite.hkdfExpand(master, join('aegis2 s2c'), 32),
  };
  const inputs = {
    ...{
      agent_seed: hex(agentSeed),
      agent_public_key: hex(A),
      gateway_seed: hex(gatewaySeed),
      gateway_public_key: hex(G),
    },
    ...{ agent_ephemeral_private: hex(agentEphemeralKey), agent_ephemeral_public: hex(agentEphemeral.publicKey) },
    ...{
      gateway_ephemeral_private: hex(gatewayEphemeralKey),
      gateway_ephemeral_public: hex(gatewayEphemeral.publicKey),
    },
    ...{ agent_nonce: hex(agentNonce), gateway_nonce: hex(gatewayNonce), sid: hex(sid), kid },
    ...{ deployment_id: deploymentId, exporter: exporter && hex(exporter), caps, identity: identityText },
  };
  const frames = {
    m1: JSON.stringify({ m1: b64(join(body1)) }),
    m2: JSON.stringify({ m2: b64(join(body2)), auth: b64(a2) }),
    m3: JSON.stringify({ m3: b64(a3) }),
  };
  const steps = {
    ...{ p: hex(p), body1, h1: hex(h1), body2, h2: hex(h2), dh: hex(dh), prk: hex(prk) },
    ...{ key_fin_s2c: hex(key('aegis2 fin s2c')), key_hs_s2c: hex(key('aegis2 hs s2c')) },
    ...{ gateway_signs: hex(signedByGateway), gateway_signature: hex(sigG), gateway_mac: hex(macG) },
    ...{ a2_plaintext: hex(plaintext2), a2: hex(a2), h3: hex(h3) },
    ...{ key_fin_c2s: hex(key('aegis2 fin c2s')), key_hs_c2s: hex(key('aegis2 hs c2s')) },
    ...{ agent_signs: hex(signedByAgent), agent_signature: hex(sigA), agent_mac: hex(macA) },
    ...{ a3_plaintext: hex(plaintext3), a3: hex(a3), h4: hex(h4), master: hex(master) },
    ...{ key_c2s: hex(recordKeys.c2s), key_s2c: hex(recordKeys.s2c) },
  };
  return { inputs, frames, steps, sid, h4, recordKeys, body1, body2, a2, a3 };
}

type Direction = 'c2s' | 's2c';

/** One record, with all that goes into it. */
function record(
  { sid, h4 }: Pick<ReturnType<typeof handshake>, 'sid' | 'h4'>,
  at: { readonly direction: Direction; readonly key: Uint8Array; readonly generation: number; readonly seq: number },
  messages: readonly object[],
) {
  const { direction, key, generation, seq } = at;
  const directionByte = bytes(1, direction === 'c2s' ? 0x00 : 0x01);
  const json = JSON.stringify(messages);
  const signed = join('aegis2/msgs\0', h4, directionByte, u64(seq), suite.sha256(join(json)));
  const signature = (direction === 'c2s' ? agentKey : gatewayKey).sign(signed);
  const nonce = join(bytes(4, 0), u64(seq));
  const aad = join('aegis2 rec\0', directionByte, sid, u32(generation), u64(seq));
  const frame = join(bytes(1, 2), u32(generation), u64(seq), suite.seal(key, nonce, join(signature, json), aad));
  return {
    ...{ direction, generation, seq, key: hex(key), json, signs: hex(signed), signature: hex(signature) },
    ...{ nonce: hex(nonce), aad: hex(aad), frame: hex(frame) },
  };
}

const message = (id: string, type: string, channel: string, payload: object, headers: object = {}) => ({
  ...{ id, type, channel, timestamp: 1_795_436_172_000, headers, payload },
});

function records(session: ReturnType<typeof handshake>) {
  const { c2s, s2c } = session.recordKeys;
  const nextC2s = suite.hkdfExpand(c2s, join('aegis2 rekey'), 32);
  const grant = {
    ...{ op: 'session', uid: '7f3f9c5e-0d7e-4c53-9d0a-0c6f4a1f2b3c', session_token: 'session-token-of-the-vectors' },
    ...{ expires_at: 1_795_522_572_000, server_time: 1_795_436_172_000, epoch: 1_795_436_172_000, heartbeat: 30_000 },
    limits: { max_record: 327_680, max_batch: 256, max_in_flight: 1_024, ack_timeout: 30_000 },
    ...{ enrollment: 'trusted', keys: { current: b64(gatewayKey.publicKey), next: b64(strangerKey.publicKey) } },
  };
  const rotationSigned = join('aegis2/rotate\0', session.h4, agentKey.publicKey, strangerKey.publicKey);
  const rotation = {
    ...{ op: 'rotate', key: b64(strangerKey.publicKey), by_old: b64(agentKey.sign(rotationSigned)) },
    by_new: b64(strangerKey.sign(rotationSigned)),
  };
  const threat = (id: string) => message(id, 'event', 'agent.threats', { severity: 'high', pid: 4242, note: 'π' });
  return [
    record(session, { direction: 's2c', key: s2c, generation: 0, seq: 0 }, [
      message('g-1', 'response', 'session', grant),
    ]),
    record(session, { direction: 'c2s', key: c2s, generation: 0, seq: 0 }, [threat('a-1')]),
    record(session, { direction: 'c2s', key: c2s, generation: 0, seq: 1 }, [threat('a-2'), threat('a-3')]),
    record(session, { direction: 's2c', key: s2c, generation: 0, seq: 1 }, [
      message('g-2', 'ack', 'session', {}, { ack_for: ['a-1', 'a-2', 'a-3'] }),
      message('g-3', 'request', 'backend.policies', { policy: 'p-1' }, { expires_in: 60_000 }),
    ]),
    record(session, { direction: 'c2s', key: nextC2s, generation: 1, seq: 2 }, [
      message('a-4', 'ack', 'session', {}, { ack_for: ['g-3'] }),
      message('a-5', 'response', 'agent.policies', { applied: true }, { reply_to: 'g-3' }),
      message('a-6', 'request', 'session', rotation),
    ]),
    record(session, { direction: 's2c', key: s2c, generation: 0, seq: 2 }, [
      message('g-4', 'response', 'session', { op: 'rotated' }, { reply_to: 'a-6' }),
    ]),
  ];
}

/** What each receiver must refuse: the inputs are those of the case `plain` but for what `instead` says. */
function failures(session: ReturnType<typeof handshake>, sealed: ReturnType<typeof records>) {
  const { frames, body1, body2, a2, a3, recordKeys } = session;
  const lowOrder = b64(bytes(32, 0));
  const withE = (body: string) => join(JSON.stringify({ ...JSON.parse(body), e: lowOrder }));
  const flip = (content: Uint8Array) => content.map((byte, index) => (index === 20 ? byte ^ 1 : byte));
  const m2 = (body: Uint8Array, proof: Uint8Array) => JSON.stringify({ m2: b64(body), auth: b64(proof) });
  const m3 = (proof: Uint8Array) => JSON.stringify({ m3: b64(proof) });
  const [, first, second] = sealed.map(({ frame }) => new Uint8Array(Buffer.from(frame, 'hex')));
  if (!first || !second) throw new Error('two records are needed');
  const backwards = record(session, { direction: 's2c', key: recordKeys.c2s, generation: 0, seq: 0 }, []).frame;
  return [
    { name: 'M1 with a low-order ephemeral key', receiver: 'gateway', m1: JSON.stringify({ m1: b64(withE(body1)) }) },
    { name: 'M1 in padded base64', receiver: 'gateway', m1: JSON.stringify({ m1: `${b64(join(body1))}=` }) },
    {
      name: 'M1 unbound where binding is required',
      receiver: 'gateway',
      instead: { binding: 'required' },
      m1: frames.m1,
    },
    {
      name: 'M2 by a gateway that is not pinned',
      receiver: 'agent',
      instead: { pins: [hex(suite.sha256(strangerKey.publicKey))] },
      m2: frames.m2,
    },
    { name: 'M2 of another deployment', receiver: 'agent', instead: { deployment_id: 'staging' }, m2: frames.m2 },
    { name: 'M2 with a low-order ephemeral key', receiver: 'agent', m2: m2(withE(body2), a2) },
    { name: 'M2 with a flipped bit in its proof', receiver: 'agent', m2: m2(join(body2), flip(a2)) },
    { name: 'M2 with a 15-byte tag', receiver: 'agent', m2: m2(join(body2), a2.subarray(0, -1)) },
    { name: 'M3 with a flipped bit', receiver: 'gateway', m3: m3(flip(a3)) },
    { name: 'M3 that is the gateway’s own proof', receiver: 'gateway', m3: m3(a2) },
    { name: 'a record with a flipped bit', receiver: 'gateway', records: [hex(flip(first))] },
    { name: 'a record with a 15-byte tag', receiver: 'gateway', records: [hex(first.subarray(0, -1))] },
    { name: 'a record that comes again', receiver: 'gateway', records: [hex(first), hex(first)] },
    { name: 'a record before its turn', receiver: 'gateway', records: [hex(second)] },
    { name: 'a record of the other direction', receiver: 'gateway', records: [backwards] },
  ];
}

/** The content of tests/vectors/aegis-v2.json. */
export function makeVectors(): string {
  const cases = settings.map((setting) => {
    const session = handshake(setting);
    const { inputs, frames, steps } = session;
    return { session, vector: { name: setting.name, inputs, steps, frames, records: records(session) } };
  });
  const [plain] = cases;
  if (!plain) throw new Error('a case is needed');
  const about =
    'Test vectors of the agent protocol aegis.v2 (docs/PROTOCOL.md). Bytes are hexadecimal; frames of the handshake, bodies and JSON are text.';
  const content = {
    about,
    cases: cases.map(({ vector }) => vector),
    failures: failures(plain.session, plain.vector.records),
  };
  return `${JSON.stringify(content, null, 2)}\n`;
}
