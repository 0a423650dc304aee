import { afterEach, describe, expect, it } from 'vitest';
import { keyFingerprint, tokenHash } from '../../src/fleet/keys.ts';
import { recordedFrames, recordedUpgrades } from '../agent-client/recordings.ts';
import { hasPostgres } from '../support/databases.ts';
import { clockFrom } from './clocks.ts';
import type { JsonObject } from './raw-agent.ts';
import { type Stage, startStage } from './stage.ts';

/** When the recordings were made: their signatures are over these seconds. */
const envelopedAtMs = 1_795_436_172_000;
const reconnectedAtMs = 1_795_436_205_000;
const handoffAtMs = 1_795_435_137_000;

const recordedUid = '8ff16dc9-6091-4bac-9d2a-a07d5111df76';
const recordedToken = 'boot-9321f15a-36e0-4501-b1d7-afb4c580c0ba';

let stage: Stage;
afterEach(() => stage.stop());

const sent = (name: 'enveloped' | 'handoff') => recordedFrames(name).filter(({ direction }) => direction === 'in');
const answered = (name: 'enveloped' | 'handoff') => recordedFrames(name).filter(({ direction }) => direction === 'out');

/** An object of the same keys in the same order and of the same types: what an agent's parser would find the same. */
function shapeOf(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return typeof value;
  return Object.entries(value).map(([key, inner]) => [key, shapeOf(inner)]);
}

function bodyOf(frame: JsonObject): JsonObject {
  const text = String(frame.payload);
  return JSON.parse(text.startsWith('{') ? text : Buffer.from(text, 'base64').toString());
}

async function dialRecorded(name: 'enveloped' | 'handoff', upgrade: number) {
  return stage.dial({ headers: recordedUpgrades(name)[upgrade] ?? {} });
}

describe('the recorded enveloped agent, byte for byte', () => {
  it('is authenticated and challenged, with answers in the shapes of the recording', async () => {
    stage = await startStage({ clock: clockFrom(envelopedAtMs) });
    const agent = await dialRecorded('enveloped', 0);
    const [auth, heartbeat, registration, complete] = sent('enveloped');
    const [authAnswer, challenge] = answered('enveloped');

    agent.socket.send(auth?.text ?? '');
    const first: JsonObject = JSON.parse(await agent.nextText());
    const recordedFirst: JsonObject = JSON.parse(authAnswer?.text ?? '');
    expect(shapeOf(first)).toEqual(shapeOf(recordedFirst));
    expect(shapeOf(bodyOf(first))).toEqual(shapeOf(bodyOf(recordedFirst)));
    expect(bodyOf(first)).toMatchObject({ success: true });

    agent.socket.ping('heartbeat');
    agent.socket.send(heartbeat?.text ?? '');
    agent.socket.send(registration?.text ?? '');
    const second: JsonObject = JSON.parse(await agent.nextText());
    const recordedSecond: JsonObject = JSON.parse(challenge?.text ?? '');
    expect(shapeOf(second)).toEqual(shapeOf(recordedSecond));
    expect(shapeOf(bodyOf(second))).toEqual(shapeOf(bodyOf(recordedSecond)));
    expect(second.channel).toBe('agent.registration');
    expect(bodyOf(second).server_time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);

    // Its signature is over the recorded challenge, which is not the one that it was given here.
    agent.socket.send(complete?.text ?? '');
    expect(bodyOf(JSON.parse(await agent.nextText()))).toMatchObject({ code: 'UNKNOWN_REGISTRATION' });
    expect(await stage.event('host-head', 'heartbeat_1795436172')).toMatchObject({ trusted: true, payload: {} });
  });

  it.skipIf(!hasPostgres())(
    'registers, reports and reconnects, where the gateway had given the recorded challenge',
    async () => {
      stage = await startStage({ clock: clockFrom(envelopedAtMs) });
      await seedRecordedAgent(stage);
      const agent = await dialRecorded('enveloped', 0);
      const frames = sent('enveloped').map(({ text }) => text);
      const [auth = '', heartbeat = '', , complete = ''] = frames;
      const registered = answered('enveloped')[2]?.text ?? '';

      agent.socket.send(auth);
      expect(bodyOf(JSON.parse(await agent.nextText()))).toMatchObject({ success: true });
      agent.socket.send(heartbeat);
      agent.socket.send(complete);
      const answer: JsonObject = JSON.parse(await agent.nextText());
      expect(shapeOf(answer)).toEqual(shapeOf(JSON.parse(registered)));
      expect(bodyOf(answer)).toEqual({ agent_uid: recordedUid, bootstrap_token: expect.stringMatching(/^\S{21,}$/) });

      for (const text of frames.slice(4, 9)) agent.socket.send(text);
      await stage.event('host-head', 'heartbeat_1795436192');
      expect(await stage.events('host-head')).toMatchObject([
        { kind: 'HEARTBEAT', channel: 'agent.host-head.heartbeat' },
        { kind: 'ANOMALIES', severity: 'HIGH', payload: { type: 'beaconing' }, trusted: true, sealed: false },
        { kind: 'THREATS', severity: 'CRITICAL', payload: { response: 'blocked' } },
        { kind: 'PROCESSES', payload: { pid: 4242, user: 'www-data' } },
        { kind: 'STATUS', payload: { policy_count: 3 } },
        { kind: 'HEARTBEAT', payload: {} },
      ]);
    },
  );

  it.skipIf(!hasPostgres())('comes back with its uid in the header and its name in the body', async () => {
    stage = await startStage({ clock: clockFrom(reconnectedAtMs) });
    await seedRecordedAgent(stage);
    const agent = await dialRecorded('enveloped', 1);
    agent.socket.send(sent('enveloped')[9]?.text ?? '');
    expect(bodyOf(JSON.parse(await agent.nextText()))).toMatchObject({ success: true });
    expect(await stage.agent(recordedUid)).toMatchObject({ connected: true, uid: recordedUid });
  });
});

describe('the recorded handoff agent, byte for byte', () => {
  it('is answered without an envelope, and its sealed anomaly is kept as sealed', async () => {
    stage = await startStage({ clock: clockFrom(handoffAtMs) });
    const agent = await dialRecorded('handoff', 0);
    const [auth, anomaly] = sent('handoff');
    agent.socket.send(auth?.text ?? '');
    const answer: unknown = JSON.parse(await agent.nextText());
    expect(shapeOf(answer)).toEqual(shapeOf(JSON.parse(answered('handoff')[0]?.text ?? '')));
    expect(answer).toMatchObject({ success: true });

    agent.socket.send(anomaly?.text ?? '');
    const event = await stage.event('host-5ca', 'msg_1795435140445170940_8674665223082153551');
    expect(event).toMatchObject({ kind: 'ANOMALIES', sealed: true, payload: null, trusted: true, severity: 'UNKNOWN' });
    expect(event.channel).toBe('agent.host-5ca.anomalies');
    expect(Date.parse(event.occurredAt)).toBe(1_795_435_140_000);
  });
});

/** The database as it stood when the recording was made: the agent's uid and key, its challenge, its bootstrap token. */
async function seedRecordedAgent({ gateway: { sql } }: Stage): Promise<void> {
  const publicKey = recordedUpgrades('enveloped')[0]?.['x-agent-public-key'] ?? '';
  const challenge = bodyOf(JSON.parse(answered('enveloped')[1]?.text ?? ''));
  const fingerprint = keyFingerprint(publicKey);
  await sql`
    insert into agents (uid, org_id, name, public_key, key_fingerprint, enrollment)
    values (${recordedUid}, 'default-org', 'host-head', ${publicKey}, ${fingerprint}, 'approved')`;
  await sql`
    insert into bootstrap_tokens (token_hash, agent_uid, key_fingerprint)
    values (${tokenHash(recordedToken)}, ${recordedUid}, ${fingerprint})`;
  await sql`
    insert into registrations (id, org_id, host_id, public_key, nonce, server_time, details, expires_at)
    values (${String(challenge.registration_id)}, 'default-org', 'host-head', ${publicKey}, ${String(challenge.nonce)},
      ${String(challenge.server_time)}, '{}', now() + interval '1 minute')`;
}
