import { describe, expect, it, vi } from 'vitest';
import { decodeBatch, encodeBatch } from '../../src/agent-gateway/wire/v2-message.ts';
import { establish, identity, initiator, json, keysOf, opened, responder, suites } from './v2-parties.ts';

describe.each(suites)('a v2 handshake on $name', ({ name, suite, other }) => {
  it('leaves two sessions that read each other, and two sides that know each other', () => {
    const { agent, gateway, proven } = establish(suite);
    expect(proven.identity).toEqual(identity);
    expect(proven.publicKey).toEqual(keysOf(suite).agentKey.publicKey);
    expect(agent.peerPublicKey).toEqual(keysOf(suite).gatewayKey.publicKey);
    expect(agent.sessionId).toEqual(new Uint8Array(gateway.sessionId));
    expect(agent.transcriptHash).toEqual(gateway.transcriptHash);
    for (let index = 0; index < 3; index++) {
      expect(opened(agent, gateway.sealer.seal(json(['to agent', index])))).toEqual(['to agent', index]);
      expect(opened(gateway, agent.sealer.seal(json(['to gateway', index])))).toEqual(['to gateway', index]);
    }
  });

  it('is the same on the other suite', () => {
    const { agent, gateway } = establish(suite, other);
    expect(opened(agent, gateway.sealer.seal(json([1])))).toEqual([1]);
    expect(opened(gateway, agent.sealer.seal(json([2])))).toEqual([2]);
  });

  it.runIf(name === 'noble')('needs nothing of Node', () => {
    vi.stubGlobal('Buffer', undefined);
    vi.stubGlobal('process', undefined);
    const read = (() => {
      try {
        const { agent, gateway } = establish(suite);
        const batch = encodeBatch([{ id: 'a', type: 'event', channel: 'c', timestampMs: 1, payloadText: '[1.0]' }]);
        const record = gateway.opener.open(agent.sealer.seal(batch));
        return record.ok && decodeBatch(record.json, 1);
      } finally {
        vi.unstubAllGlobals();
      }
    })();
    expect(read).toMatchObject({ ok: true, value: [{ payloadText: '[1.0]', payload: [1] }] });
  });

  it('stops before the agent names itself where the gateway has a key that is not pinned', () => {
    const gateway = responder(suite, { signingKey: keysOf(suite).otherKey });
    const agent = initiator(suite);
    const m2 = gateway.takeM1(agent.m1);
    expect(m2.ok && agent.takeM2(m2.value)).toEqual({ ok: false, cause: 'unknown-gateway-key' });
  });
});
