import { describe, expect, it } from 'vitest';
import { DirectionKey } from '../../src/agent-gateway/crypto/direction-key.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import type { CryptoSuite } from '../../src/agent-gateway/crypto/suite.ts';
import { type RecordContext, RecordOpener, RecordSealer } from '../../src/agent-gateway/crypto/v2-records.ts';
import { maxRecordsPerGeneration } from '../../src/agent-gateway/wire/v2-limits.ts';
import { recordOverheadBytes } from '../../src/agent-gateway/wire/v2-record.ts';
import { flipped } from './bytes.ts';
import { establish, json, keysOf, opened, suites } from './v2-parties.ts';

/** One direction of a session that is always the same. */
const fixedContext = (suite: CryptoSuite): RecordContext => ({
  ...{ suite, direction: 'gatewayToAgent', sessionId: new Uint8Array(16).fill(1) },
  ...{ transcriptHash: new Uint8Array(32).fill(2), key: new DirectionKey(suite, new Uint8Array(32).fill(3)) },
});

/** What docs/PROTOCOL.md says that records stand up to, each attack by its name. */

describe.each(suites)('records on $name', ({ name, suite, other }) => {
  it('go on under the next key after a rekey, in either direction, each at its own time', () => {
    const { agent, gateway } = establish(suite, other);
    for (let round = 0; round < 3; round++) {
      expect(opened(gateway, agent.sealer.seal(json(['up', round])))).toEqual(['up', round]);
      expect(opened(agent, gateway.sealer.seal(json(['down', round])))).toEqual(['down', round]);
      agent.sealer.rekey();
    }
    expect([agent.sealer.generation, gateway.sealer.generation]).toEqual([3, 0]);
  });

  it('have the size that is promised around their JSON', () => {
    const { agent } = establish(suite);
    expect(agent.sealer.seal(json([1, 2]))).toHaveLength(5 + recordOverheadBytes);
  });

  it('stand up to replay', () => {
    const { agent, gateway } = establish(suite);
    const first = agent.sealer.seal(json([1]));
    expect(opened(gateway, first)).toEqual([1]);
    expect(opened(gateway, first)).toBe('out-of-sequence');
  });

  it('stand up to reordering and to loss', () => {
    const { agent, gateway } = establish(suite);
    agent.sealer.seal(json([1]));
    expect(opened(gateway, agent.sealer.seal(json([2])))).toBe('out-of-sequence');
  });

  it('stand up to a new number on an old record', () => {
    const { agent, gateway } = establish(suite);
    const first = agent.sealer.seal(json([1]));
    expect(opened(gateway, first)).toEqual([1]);
    const renumbered = Uint8Array.from(first);
    renumbered[12] = 1;
    expect(opened(gateway, renumbered)).toBe('not-opened');
  });

  it('stand up to splicing into another session of the same two', () => {
    const [one, two] = [establish(suite), establish(suite)];
    expect(opened(two.gateway, one.agent.sealer.seal(json([1])))).toBe('not-opened');
    expect(opened(one.agent, two.gateway.sealer.seal(json([1])))).toBe('not-opened');
  });

  it('stand up to reflection', () => {
    const { agent, gateway } = establish(suite);
    expect(opened(agent, agent.sealer.seal(json([1])))).toBe('not-opened');
    expect(opened(gateway, gateway.sealer.seal(json([1])))).toBe('not-opened');
  });

  it('stand up to generations that were skipped, or that are past', () => {
    const [skipped, past] = [establish(suite), establish(suite)];
    skipped.agent.sealer.rekey();
    skipped.agent.sealer.rekey();
    expect(opened(skipped.gateway, skipped.agent.sealer.seal(json([1])))).toBe('wrong-generation');
    past.agent.sealer.rekey();
    expect(opened(past.gateway, past.agent.sealer.seal(json([1])))).toEqual([1]);
    const old = Uint8Array.from(past.agent.sealer.seal(json([2])));
    old[4] = 0;
    expect(opened(past.gateway, old)).toBe('wrong-generation');
  });

  it('stand up to a forged rekey: nothing moves on before a record has opened', () => {
    const { agent, gateway } = establish(suite);
    const forged = Uint8Array.from(agent.sealer.seal(json([1])));
    forged[4] = 1;
    expect(opened(gateway, forged)).toBe('not-opened');
  });

  it('stand up to truncated tags, and to being cut short anywhere', () => {
    const key = suite.signingKeyFromSeed(new Uint8Array(32).fill(9));
    const frame = new RecordSealer(fixedContext(suite), (message) => key.sign(message)).seal(json(['a message']));
    const verify = suite.verifier(key.publicKey);
    for (let length = 0; length < frame.length; length++) {
      const refused = new RecordOpener(fixedContext(suite), verify).open(frame.subarray(0, length));
      const cause = length <= recordOverheadBytes ? 'malformed' : 'not-opened';
      expect(refused).toEqual({ ok: false, cause });
    }
  });

  it('are refused for good after the first one that was, and after the session has been erased', () => {
    const { agent, gateway } = establish(suite);
    const good = agent.sealer.seal(json([1]));
    expect(opened(gateway, flipped(good, 200))).toBe('not-opened');
    expect(opened(gateway, good)).toBe('closed');
    agent.erase();
    expect(opened(agent, gateway.sealer.seal(json([1])))).toBe('closed');
    expect(() => agent.sealer.seal(json([1]))).toThrow('erased');
    expect(() => agent.sealer.rekey()).toThrow('erased');
  });

  it('are refused where the holder of the session’s keys is not the holder of the signing key', () => {
    const { agentKey, otherKey } = keysOf(suite);
    const context = () => ({
      ...{ suite, direction: 'agentToGateway' as const, sessionId: new Uint8Array(16) },
      ...{ transcriptHash: new Uint8Array(32), key: new DirectionKey(suite, new Uint8Array(32).fill(4)) },
    });
    const open = (frame: Uint8Array) => new RecordOpener(context(), suite.verifier(agentKey.publicKey)).open(frame);
    const sealedBy = (key: typeof agentKey) =>
      new RecordSealer(context(), (message) => key.sign(message)).seal(json([1]));
    expect(open(sealedBy(agentKey)).ok).toBe(true);
    expect(open(sealedBy(otherKey))).toEqual({ ok: false, cause: 'wrong-signature' });
  });

  it.each([
    ['direction', { direction: 'agentToGateway' }, 'not-opened'],
    ['session', { sessionId: new Uint8Array(16).fill(7) }, 'not-opened'],
    ['handshake', { transcriptHash: new Uint8Array(32).fill(7) }, 'wrong-signature'],
  ] as const)('are bound to their %s, even under the same keys', (_, elsewhere, cause) => {
    const key = suite.signingKeyFromSeed(new Uint8Array(32).fill(9));
    const frame = new RecordSealer(fixedContext(suite), (message) => key.sign(message)).seal(json([1]));
    const open = (context: Partial<RecordContext>) =>
      new RecordOpener({ ...fixedContext(suite), ...context }, suite.verifier(key.publicKey)).open(frame);
    expect(open({}).ok).toBe(true);
    expect(open(elsewhere)).toEqual({ ok: false, cause });
  });

  it(`stand up to any flipped bit${name === 'native' ? '' : ', of one in 41'}`, () => {
    const key = suite.signingKeyFromSeed(new Uint8Array(32).fill(9));
    const frame = new RecordSealer(fixedContext(suite), (message) => key.sign(message)).seal(json(['a message']));
    const verify = suite.verifier(key.publicKey);
    expect(new RecordOpener(fixedContext(suite), verify).open(frame).ok).toBe(true);
    for (let bit = 0; bit < frame.length * 8; bit += name === 'native' ? 1 : 41)
      expect(new RecordOpener(fixedContext(suite), verify).open(flipped(frame, bit)).ok).toBe(false);
  });
});

describe('nonces', () => {
  it('are used once, in rising order, whatever the caller does', () => {
    const key = new DirectionKey(nativeCrypto, new Uint8Array(32));
    const nothing = new Uint8Array();
    key.seal(5, nothing, nothing);
    for (const counter of [5, 4, 0, -1, 6.5, Number.NaN, 2 ** 53])
      expect(() => key.seal(counter, nothing, nothing)).toThrow('a nonce is used once');
    key.seal(6, nothing, nothing);
    key.seal(2 ** 53 - 1, nothing, nothing);
    expect(() => key.seal(2 ** 53 - 1, nothing, nothing)).toThrow('a nonce is used once');
  });

  it('never repeat under one key in more than 2^20 records, which bring a new key by themselves', () => {
    const uses: { readonly key: Uint8Array; last: number }[] = [];
    const signature = new Uint8Array(64);
    // Everything but the choice of keys and nonces is left out: that is what is looked at, two million times.
    const counting: CryptoSuite = {
      ...nativeCrypto,
      sha256: () => new Uint8Array(32),
      seal(key, nonce) {
        const counter = new DataView(nonce.buffer).getUint32(8);
        const use = uses.at(-1);
        if (use?.key !== key) uses.push({ key, last: counter });
        else if (counter <= use.last) throw new Error('repeated');
        else use.last = counter;
        return signature;
      },
    };
    const key = new DirectionKey(counting, new Uint8Array(32).fill(1));
    const [sessionId, transcriptHash] = [new Uint8Array(16), new Uint8Array(32)];
    const context = { suite: counting, direction: 'agentToGateway', sessionId, transcriptHash, key } as const;
    const sealer = new RecordSealer(context, () => signature);
    const text = new Uint8Array(2);
    for (let record = 0; record < maxRecordsPerGeneration + 1; record++) sealer.seal(text);
    expect(sealer.generation).toBe(1);
    sealer.rekey();
    for (let record = 0; record < 10; record++) sealer.seal(text);
    expect(uses.map(({ last }) => last)).toEqual([
      ...[maxRecordsPerGeneration - 1, maxRecordsPerGeneration, maxRecordsPerGeneration + 10],
    ]);
  }, 60_000);

  it('are not accepted beyond 2^20 of one key either', () => {
    const plain = new Uint8Array(66);
    const context = (suite: CryptoSuite) => ({
      ...{ suite, direction: 'agentToGateway' as const, sessionId: new Uint8Array(16) },
      ...{ transcriptHash: new Uint8Array(32), key: new DirectionKey(suite, new Uint8Array(32)) },
    });
    const lax: CryptoSuite = { ...nativeCrypto, sha256: () => new Uint8Array(32), open: () => plain };
    const opener = new RecordOpener(context(lax), () => true);
    const frame = Buffer.alloc(13 + 82);
    frame[0] = 2;
    for (let seq = 0; seq < maxRecordsPerGeneration; seq++) {
      frame.writeUInt32BE(seq, 9);
      if (!opener.open(frame).ok) throw new Error(`refused at ${seq}`);
    }
    frame.writeUInt32BE(maxRecordsPerGeneration, 9);
    expect(opener.open(frame)).toEqual({ ok: false, cause: 'wrong-generation' });
  }, 60_000);
});
