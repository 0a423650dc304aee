import { describe, expect, it } from 'vitest';
import type { V1Agent } from '../../src/agent-client/index.ts';
import { handoffSealingKey, identitySignatureText, messageSignatureText } from '../../src/agent-client/v1-frames.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { readFrame, useStage } from './stage.ts';

const stage = useStage();
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

function isSignedBy(agent: V1Agent, text: string, signature: string): boolean {
  return nativeCrypto.verify(agent.key.publicKey, Buffer.from(text), Buffer.from(signature, 'base64'));
}

describe('what an enveloped agent sends', () => {
  it('arrives as it was written', async () => {
    const { server, start } = stage();
    const agent = start();
    await agent.ready();
    const { text, message } = await agent.sendEvent('anomalies', { type: 'beaconing', severity: 'high' });
    const frame = await server.next('frame', ({ channel }) => channel === 'agent.anomalies');
    expect(frame.text).toBe(text);
    expect(readFrame(text)).toMatchObject({ frame: { ...message }, body: { severity: 'high', type: 'beaconing' } });
  });

  it('is signed for the uid, all of one second alike, and has an id of its own', async () => {
    const { clock, start } = stage();
    const agent = start();
    await agent.ready();
    const first = (await agent.sendEvent('logs', 'one')).message;
    const second = (await agent.sendEvent('status', 'two')).message;
    clock.advance(1_000);
    const later = (await agent.sendEvent('logs', 'three')).message;
    expect(first.id).toMatch(/^msg_1795436172\d{9}_\d{1,19}$/);
    expect(second.id).not.toBe(first.id);
    expect(second.signature).toBe(first.signature);
    expect(later.signature).not.toBe(first.signature);
    for (const { timestamp, nonce, signature } of [first, later]) {
      const signed = identitySignatureText(agent.uid ?? '', base64(agent.key.publicKey), timestamp, nonce);
      expect(isSignedBy(agent, signed, signature)).toBe(true);
    }
  });

  it.each([
    ['message_nonc', 'bWVzc2FnZV9ub25j'],
    ['message_nonce', 'bWVzc2FnZV9ub25jZQ=='],
  ] as const)('has the constant nonce %s', async (nonce, expected) => {
    const agent = stage().start({ habits: { nonce } });
    await agent.ready();
    expect((await agent.sendEvent('logs', {})).message.nonce).toBe(expected);
    expect((await agent.sendEvent('logs', {})).message.nonce).toBe(expected);
  });

  it('has a new nonce each time where that is its habit', async () => {
    const agent = stage().start({ habits: { nonce: 'random' } });
    await agent.ready();
    const first = (await agent.sendEvent('logs', {})).message.nonce;
    const second = (await agent.sendEvent('logs', {})).message.nonce;
    expect(Buffer.from(first, 'base64')).toHaveLength(12);
    expect(second).not.toBe(first);
  });

  it('goes out on the channels that its habits name', async () => {
    const { start } = stage();
    const agents = {
      short: start(),
      uid: start({ habits: { channelForm: 'long' } }),
      name: start({ habits: { channelForm: 'long', channelIdentity: 'name' } }),
      unregistered: start({ habits: { channelForm: 'long', registers: false } }),
    };
    const channels: Record<string, string> = {};
    for (const [habit, agent] of Object.entries(agents)) {
      await agent.ready();
      channels[habit] = (await agent.sendEvent('threats', {})).message.channel;
    }
    expect(channels).toEqual({
      short: 'agent.threats',
      uid: `agent.${agents.uid.uid}.threats`,
      name: 'agent.host-head.threats',
      unregistered: 'agent.host-head.threats',
    });
  });

  it('takes both forms in turn where they are mixed', async () => {
    const agent = stage().start({ habits: { channelForm: 'mixed', registers: false } });
    await agent.ready();
    const channels = [];
    for (const kind of ['logs', 'logs', 'logs'] as const)
      channels.push((await agent.sendEvent(kind, {})).message.channel);
    expect(channels).toEqual(['agent.logs', 'agent.host-head.logs', 'agent.logs']);
  });

  it('takes what the caller says before any habit', async () => {
    const agent = stage().start();
    await agent.ready();
    const { message } = await agent.sendEvent('logs', Buffer.from('not JSON'), {
      id: 'own-id',
      type: 'request',
      timestamp: 5,
      headers: { b: '2', a: '1' },
      channel: 'agent.somebody-else.logs',
      alter: (signed) => ({ ...signed, signature: 'none' }),
    });
    expect(message).toEqual({
      id: 'own-id',
      type: 'request',
      channel: 'agent.somebody-else.logs',
      payload: Buffer.from('not JSON').toString('base64'),
      timestamp: 5,
      nonce: 'bWVzc2FnZV9ub25j',
      signature: 'none',
      headers: { b: '2', a: '1' },
    });
  });

  it('may be any text or any bytes', async () => {
    const { server, start } = stage();
    const agent = start();
    await agent.ready();
    await agent.sendRaw('}{');
    await agent.sendRaw(Buffer.from([0xff, 0x00]));
    expect((await server.next('frame', ({ text }) => text === '}{')).peer).toBe(1);
    expect((await server.next('binary')).bytes).toEqual(Buffer.from([0xff, 0x00]));
  });

  it('is refused while there is no connection', async () => {
    const agent = stage().start();
    await expect(agent.sendEvent('logs', {})).rejects.toMatchObject({ code: 'NOT_CONNECTED' });
    await expect(agent.sendRaw('x')).rejects.toMatchObject({ code: 'NOT_CONNECTED' });
    await expect(agent.ping()).rejects.toMatchObject({ code: 'NOT_CONNECTED' });
  });
});

describe('what a handoff agent sends', () => {
  it('is sealed with its private key and signed with all but the nonce', async () => {
    const { server, start } = stage();
    const agent = start({ dialect: 'handoff', habits: { channelForm: 'long' } });
    await agent.ready();
    const { message } = await agent.sendEvent('anomalies', { severity: 'warn' });
    const key = handoffSealingKey(nativeCrypto, agent.seed, agent.key.publicKey, server.backendKey.publicKey);
    const opened = nativeCrypto.open(key, Buffer.from(message.nonce, 'base64'), Buffer.from(message.payload, 'base64'));
    expect(Buffer.from(opened ?? []).toString()).toBe('{"severity":"warn"}');
    expect(message.channel).toBe('agent.host-head.anomalies');
    expect(isSignedBy(agent, messageSignatureText(message), message.signature)).toBe(true);
  });
});

describe('the commands of an enveloped agent', () => {
  it('are journaled with what was in them', async () => {
    const { server, clock, start } = stage();
    const agent = start();
    await agent.ready();
    server.send(1, server.commandFrame(agent.key.publicKey, 'backend.policies', { action: 'deploy_policy' }, 'c-7'));
    expect(await agent.commands.next()).toMatchObject({
      id: 'c-7',
      kind: 'policies',
      channel: 'backend.policies',
      body: { action: 'deploy_policy' },
      link: 1,
      receivedAtMs: clock.nowMs(),
    });
  });

  it('are journaled again when they come twice', async () => {
    const { server, start } = stage();
    const agent = start();
    await agent.ready();
    const frame = server.commandFrame(agent.key.publicKey, 'backend.tests', {}, 'twice');
    server.send(1, frame);
    server.send(1, frame);
    await agent.commands.next();
    await agent.commands.next();
    expect(agent.commands.entries.map(({ id }) => id)).toEqual(['twice', 'twice']);
  });

  it.each([
    ['backend.host-head.policies', 'unheard'],
    ['backend.status', 'unheard'],
  ] as const)('have no effect on %s', async (channel, reason) => {
    const { server, start } = stage();
    const agent = start();
    await agent.ready();
    server.send(1, server.commandFrame(agent.key.publicKey, channel, {}));
    expect(await agent.nextEvent('frame-dropped')).toMatchObject({ reason, channel });
    expect(agent.commands.count).toBe(0);
  });

  it('cannot be opened when sealed for another agent, nor by an older version, nor by a handoff agent', async () => {
    const { server, start } = stage();
    const sound = start();
    await sound.ready();
    const old = start({ habits: { opensCommands: false } });
    await old.ready();
    const handoff = start({ dialect: 'handoff' });
    await handoff.ready();
    server.send(1, server.commandFrame(old.key.publicKey, 'backend.policies', {}));
    server.send(2, server.commandFrame(old.key.publicKey, 'backend.policies', {}));
    server.send(3, server.commandFrame(handoff.key.publicKey, 'backend.policies', {}));
    for (const agent of [sound, old, handoff]) {
      expect(await agent.nextEvent('frame-dropped')).toMatchObject({ reason: 'unopened' });
      expect(agent.state).toBe('ready');
    }
  });

  it('have been read when the pong to a later ping comes', async () => {
    const { server, start } = stage();
    const agent = start();
    await agent.ready();
    for (let index = 0; index < 50; index++) {
      server.send(1, server.commandFrame(agent.key.publicKey, 'backend.policies', { index }));
    }
    server.ping(1, 'barrier');
    expect((await server.next('pong')).body).toBe('barrier');
    expect(agent.commands.count).toBe(50);
    expect(await agent.nextEvent('pinged')).toMatchObject({ body: 'barrier' });
  });

  it('may follow the last answer of the handshake at once', async () => {
    const { server, start } = stage();
    const agent = start();
    await server.next('frame', ({ channel }) => channel === 'agent.registration.complete');
    server.send(1, server.commandFrame(agent.key.publicKey, 'backend.policies', {}, 'prompt'));
    expect(await agent.commands.next()).toMatchObject({ id: 'prompt' });
  });
});
