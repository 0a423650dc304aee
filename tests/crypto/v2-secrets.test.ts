import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import { DirectionKey } from '../../src/agent-gateway/crypto/direction-key.ts';
import type { CryptoSuite } from '../../src/agent-gateway/crypto/suite.ts';
import { signRotation, verifyRotation } from '../../src/agent-gateway/crypto/v2-key-rotation.ts';
import { KeySchedule } from '../../src/agent-gateway/crypto/v2-schedule.ts';
import { flipped, toHex } from './bytes.ts';
import { establish, initiator, json, keysOf, opened, responder, suites, taken } from './v2-parties.ts';

/** A suite that remembers every secret that it gives out: the buffers themselves, and what stood in them. */
function watching(suite: CryptoSuite) {
  const secrets: { readonly buffer: Uint8Array; readonly content: string }[] = [];
  const watched = (buffer: Uint8Array) => {
    secrets.push({ buffer, content: toHex(buffer) ?? '' });
    return buffer;
  };
  const watchedKey = (key: ReturnType<CryptoSuite['generateAgreementKey']>) => ({
    ...key,
    sharedSecret(peer: Uint8Array) {
      const shared = key.sharedSecret(peer);
      return shared && watched(shared);
    },
  });
  const watcher: CryptoSuite = {
    ...suite,
    generateAgreementKey: () => watchedKey(suite.generateAgreementKey()),
    hkdfExtract: (salt, keyMaterial) => watched(suite.hkdfExtract(salt, keyMaterial)),
    hkdfExpand: (key, info, length) => watched(suite.hkdfExpand(key, info, length)),
  };
  const alive = () => secrets.filter(({ buffer }) => buffer.some((byte) => byte !== 0));
  return { watcher, secrets, alive };
}

describe.each(suites)('the secrets of a session on $name', ({ suite }) => {
  it('are erased as soon as they have been used: after the handshake the record keys alone are left', () => {
    const { watcher, secrets, alive } = watching(suite);
    const { agent, gateway } = establish(watcher);
    // Each side: the shared secret, prk, two handshake keys, two "fin" keys, master, two record keys.
    expect(secrets).toHaveLength(18);
    expect(new Set(alive().map(({ content }) => content)).size).toBe(2);
    expect(alive()).toHaveLength(4);
    agent.erase();
    expect(alive()).toHaveLength(2);
    gateway.erase();
    expect(alive()).toEqual([]);
  });

  it('are erased by a rekey on both sides, so that whoever takes the keys later reads nothing earlier', () => {
    const { watcher, alive } = watching(suite);
    const { agent, gateway } = establish(watcher);
    const before = new Set(alive().map(({ content }) => content));
    expect(opened(gateway, agent.sealer.seal(json([1])))).toEqual([1]);
    agent.sealer.rekey();
    expect(opened(gateway, agent.sealer.seal(json([2])))).toEqual([2]);
    const after = alive().map(({ content }) => content);
    expect(after).toHaveLength(4);
    // The other direction has not changed its key; of this one nothing is left.
    expect(after.filter((content) => before.has(content))).toHaveLength(2);
    gateway.sealer.rekey();
    expect(opened(agent, gateway.sealer.seal(json([3])))).toEqual([3]);
    expect(alive().filter(({ content }) => before.has(content))).toEqual([]);
  });

  it('are erased where the handshake fails or is given up, at any step', () => {
    const { watcher, secrets, alive } = watching(suite);
    const agent = initiator(watcher);
    const gateway = responder(watcher);
    const m2 = taken(gateway.takeM1(agent.m1));
    gateway.takeM3('{}');
    agent.takeM2(m2.replace('"auth":"', '"auth":"AAAA'));
    expect(secrets.length).toBeGreaterThan(4);
    expect(alive()).toEqual([]);
    const abandoned = responder(watcher);
    abandoned.takeM1(initiator(watcher).m1);
    expect(alive()).not.toEqual([]);
    abandoned.abort();
    expect(alive()).toEqual([]);
  });

  it('are erased after a record that did not open', () => {
    const { watcher, alive } = watching(suite);
    const { agent, gateway } = establish(watcher);
    agent.sealer.rekey();
    const frame = agent.sealer.seal(json([1]));
    agent.erase();
    expect(opened(gateway, flipped(frame, 300))).toBe('not-opened');
    gateway.sealer.erase();
    expect(alive()).toEqual([]);
  });

  it('show in no log: neither inspected nor as JSON', () => {
    const { watcher, secrets } = watching(suite);
    const agent = initiator(watcher);
    const gateway = responder(watcher);
    const m2 = taken(gateway.takeM1(agent.m1));
    const { m3, session } = taken(agent.takeM2(m2));
    const proven = taken(gateway.takeM3(m3));
    const schedule = new KeySchedule(watcher, new Uint8Array(32), new Uint8Array(32).fill(1));
    const key = new DirectionKey(watcher, watcher.hkdfExpand(new Uint8Array(32), new Uint8Array(), 32));
    const shown = [agent, gateway, session, proven, schedule, key].flatMap((object) => [
      inspect(object, { depth: null, showHidden: true, maxArrayLength: null, maxStringLength: null }),
      JSON.stringify(object),
    ]);
    expect(secrets.length).toBeGreaterThan(10);
    for (const { content } of secrets) {
      const raw = Buffer.from(content, 'hex');
      const forms = [content, raw.toString('base64').replace(/=+$/, ''), raw.toString('base64url')];
      const listed = [raw.join(','), raw.join(', '), inspect(raw).slice(8, -1)];
      for (const text of shown)
        for (const form of [...forms, ...listed]) expect(text.replaceAll(/\s+/g, ' ').includes(form)).toBe(false);
    }
  });
});

describe.each(suites)('the rotation of an agent’s key on $name', ({ suite, other }) => {
  const { agentKey, gatewayKey, otherKey } = keysOf(suite);

  it('is signed by the old key and by the new, for this session', () => {
    const { agent, gateway } = establish(suite);
    const rotation = signRotation(agent, agentKey, otherKey);
    expect(rotation.publicKey).toEqual(otherKey.publicKey);
    expect(verifyRotation(suite, gateway, rotation)).toBe(true);
    expect(verifyRotation(other, gateway, rotation)).toBe(true);
  });

  it('is refused in another session, by other keys, to the same key, or changed anywhere', () => {
    const { agent, gateway } = establish(suite);
    const rotation = signRotation(agent, agentKey, otherKey);
    const isGood = (changed: Partial<typeof rotation>) => verifyRotation(suite, gateway, { ...rotation, ...changed });
    expect(verifyRotation(suite, establish(suite).gateway, rotation)).toBe(false);
    expect(verifyRotation(suite, gateway, signRotation(agent, gatewayKey, otherKey))).toBe(false);
    expect(verifyRotation(suite, gateway, signRotation(agent, agentKey, agentKey))).toBe(false);
    expect(isGood({ publicKey: gatewayKey.publicKey })).toBe(false);
    expect(isGood({ signatureByOld: rotation.signatureByNew, signatureByNew: rotation.signatureByOld })).toBe(false);
    for (const bit of [0, 100, 300, 511]) {
      expect(isGood({ signatureByOld: flipped(rotation.signatureByOld, bit) })).toBe(false);
      expect(isGood({ signatureByNew: flipped(rotation.signatureByNew, bit) })).toBe(false);
    }
  });
});
