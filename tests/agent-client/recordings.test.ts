import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { AgentIdentity } from '../../src/agent-client/identity.ts';
import {
  authenticationRequest,
  commandSealingKey,
  encodeEnvelopedAuthentication,
  encodeHandoffAuthentication,
  encodeRegistration,
  encodeRegistrationComplete,
  encodeSecureMessage,
  envelopedMessage,
  readCommand,
} from '../../src/agent-client/index.ts';
import {
  readEnvelopedGrant,
  readHandoffGrant,
  readRegistrationChallenge,
  readRegistrationGrant,
} from '../../src/agent-client/v1-answers.ts';
import { messageSignatureText } from '../../src/agent-client/v1-frames.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { nobleCrypto } from '../../src/agent-gateway/crypto/noble.ts';
import {
  fromBase64,
  parseMessage,
  type RecordedFrame,
  type RecordedMessage,
  recordedFrames,
  recordedKey,
  recordedUpgrades,
} from './recordings.ts';

const agentName = 'host-head';
const uid = '8ff16dc9-6091-4bac-9d2a-a07d5111df76';
const publicKey = 'S+7JmivssrmfNmsyLOYNTWPu4E9PdfM6YYcrVaUEfj0=';
const authentication = z.object({
  agent_id: z.string(),
  public_key: z.string(),
  timestamp: z.number(),
  nonce: z.string(),
  signature: z.string(),
});

const enveloped = recordedFrames('enveloped');
const received = enveloped.filter((frame) => frame.direction === 'in');

function inner(message: RecordedMessage): unknown {
  return JSON.parse(fromBase64(message.payload).toString('utf8'));
}

function only(frames: readonly RecordedFrame[], channel: string | null, direction = 'in'): RecordedFrame[] {
  const found = frames.filter((frame) => frame.channel === channel && frame.direction === direction);
  expect(found.length).toBeGreaterThan(0);
  return found;
}

function rebuildAuthentication(recorded: z.infer<typeof authentication>) {
  return authenticationRequest({
    key: recordedKey(recorded.public_key, recorded.signature),
    agentId: recorded.agent_id,
    timestamp: recorded.timestamp,
    nonce: fromBase64(recorded.nonce),
  });
}

describe('the recorded enveloped agent, byte for byte', () => {
  it('authenticates, at first and again after a drop', () => {
    const frames = only(received, 'auth');
    expect(frames).toHaveLength(2);
    for (const frame of frames) {
      const recorded = parseMessage(frame);
      const request = rebuildAuthentication(authentication.parse(inner(recorded)));
      expect(encodeEnvelopedAuthentication(recorded.id, request)).toBe(frame.text);
    }
  });

  it('registers', () => {
    const [frame] = only(received, 'agent.registration');
    const recorded = parseMessage(frame ?? expect.unreachable());
    const facts = z
      .object({
        org_id: z.string(),
        host_id: z.string(),
        agent_pubkey: z.string(),
        machine_id_hash: z.string(),
        agent_version: z.string(),
        capabilities: z.json(),
        platform: z.json(),
        network: z.json(),
      })
      .parse(inner(recorded));
    expect(encodeRegistration(recorded.id, recorded.timestamp, facts)).toBe(frame?.text);
  });

  it('completes its registration, signing what the challenge gave', () => {
    const [answer] = only(enveloped, 'agent.registration', 'out');
    const challenge = readRegistrationChallenge(answer?.text ?? '');
    const [frame] = only(received, 'agent.registration.complete');
    const recorded = parseMessage(frame ?? expect.unreachable());
    const complete = z.object({ host_id: z.string(), signature: z.string() }).parse(inner(recorded));
    if (!challenge.ok) expect.unreachable();
    const rebuilt = encodeRegistrationComplete({
      id: recorded.id,
      timestamp: recorded.timestamp,
      key: recordedKey(publicKey, complete.signature),
      ...challenge.value,
      hostId: complete.host_id,
    });
    expect(rebuilt).toBe(frame?.text);
  });

  const messages = received.filter(({ channel }) => channel !== 'auth' && !channel?.startsWith('agent.registration'));

  it('has six messages in its recording', () => {
    expect(messages).toHaveLength(6);
  });

  it.each(messages)('sends on $channel', (frame) => {
    const recorded = parseMessage(frame);
    const isBeforeRegistration = frame === messages[0];
    const rebuilt = envelopedMessage({
      key: recordedKey(publicKey, recorded.signature),
      identifier: isBeforeRegistration ? agentName : uid,
      id: recorded.id,
      type: recorded.type,
      channel: recorded.channel,
      timestamp: recorded.timestamp,
      nonce: fromBase64(recorded.nonce),
      body: z.json().parse(inner(recorded)),
    });
    expect(encodeSecureMessage(rebuilt)).toBe(frame.text);
  });

  it('sends the upgrade headers of before and after its registration', () => {
    const [first, second] = recordedUpgrades('enveloped');
    const fresh = new AgentIdentity(nativeCrypto, agentName, new Uint8Array(32), null);
    const registered = new AgentIdentity(nativeCrypto, agentName, new Uint8Array(32), {
      uid,
      bootstrapToken: 'boot-9321f15a-36e0-4501-b1d7-afb4c580c0ba',
    });
    expect(lowerCaseHeaders(fresh)).toEqual({ ...first, 'x-agent-public-key': fresh.publicKeyBase64 });
    expect(lowerCaseHeaders(registered)).toEqual({ ...second, 'x-agent-public-key': registered.publicKeyBase64 });
    expect(first?.['x-agent-public-key']).toBe(publicKey);
  });

  it('reads every answer', () => {
    const [auth] = only(enveloped, 'auth', 'out');
    const [complete] = only(enveloped, 'agent.registration.complete', 'out');
    expect(readEnvelopedGrant(auth?.text ?? '')).toMatchObject({
      ok: true,
      value: { sessionToken: 'tok_xPoQoT+M3IIlEZ8A0pgMPL4BBvGnTWi3', expiresAt: 1_795_522_572 },
    });
    expect(readRegistrationGrant(complete?.text ?? '')).toEqual({
      ok: true,
      value: { uid, bootstrapToken: 'boot-9321f15a-36e0-4501-b1d7-afb4c580c0ba' },
    });
  });

  it.each([
    ['native', nativeCrypto],
    ['noble', nobleCrypto],
  ])('opens the command it was sent, with public values alone (%s)', (_name, suite) => {
    const [auth] = only(enveloped, 'auth', 'out');
    const grant = readEnvelopedGrant(auth?.text ?? '');
    if (!grant.ok) expect.unreachable();
    const key = commandSealingKey(suite, fromBase64(publicKey), grant.value.backendKey);
    const [frame] = only(enveloped, 'backend.policies', 'out');
    expect(readCommand(suite, key, frame?.text ?? '')).toMatchObject({
      ok: true,
      command: {
        kind: 'policies',
        text: '{"action":"deploy_policy","policy_id":"p1","policy_config":{"action":"block"}}',
        body: { action: 'deploy_policy', policy_id: 'p1', policy_config: { action: 'block' } },
      },
    });
  });
});

describe('the recorded handoff agent, byte for byte', () => {
  const frames = recordedFrames('handoff');
  const [request, message] = frames.filter((frame) => frame.direction === 'in');
  const recorded = authentication.parse(JSON.parse(request?.text ?? ''));

  it('authenticates', () => {
    expect(encodeHandoffAuthentication(rebuildAuthentication(recorded))).toBe(request?.text);
  });

  it('reads the answer', () => {
    const [answer] = frames.filter((frame) => frame.direction === 'out');
    expect(readHandoffGrant(answer?.text ?? '')).toMatchObject({ ok: true, value: { expiresAt: 1_795_521_537 } });
  });

  it('signs id, type, channel, time and sealed payload, and writes them in this order', () => {
    const parsed = parseMessage(message ?? expect.unreachable());
    const signed = Buffer.from(messageSignatureText(parsed));
    expect(nativeCrypto.verify(fromBase64(recorded.public_key), signed, fromBase64(parsed.signature))).toBe(true);
    expect(encodeSecureMessage({ ...parsed, headers: {} })).toBe(message?.text);
    expect(fromBase64(parsed.nonce)).toHaveLength(12);
  });
});

function lowerCaseHeaders(identity: AgentIdentity): Record<string, string> {
  return Object.fromEntries(
    Object.entries(identity.upgradeHeaders()).map(([name, value]) => [name.toLowerCase(), value]),
  );
}
