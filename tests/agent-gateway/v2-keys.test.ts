import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { keyFingerprint } from '../../src/agent-gateway/crypto/v2-schedule.ts';
import { prepareNextKey, promoteNextKey, readKeys } from '../../src/agent-gateway/key-files.ts';
import { decodeKeysNotice, type GatewayKeys } from '../../src/agent-gateway/wire/v2-session-channel.ts';
import { makeCertificate } from '../support/certificates.ts';
import { eventually } from '../support/eventually.ts';
import { startTestGateway, type TestGateway } from '../support/gateway.ts';
import { SteppedClock } from './clocks.ts';
import { RawV2Agent, type V2DialOptions } from './raw-v2-agent.ts';
import { type Stage, startStage } from './stage.ts';

const folders: string[] = [];
function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'aegis-v2-keys-'));
  folders.push(folder);
  return folder;
}
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

/** What an agent pins of these. */
const fingerprints = ({ current, next }: GatewayKeys) =>
  [current, next].map((key) => key && keyFingerprint(nativeCrypto, key));

describe("the gateway's keys", () => {
  const dataDir = newFolder();
  const location = { files: null, dataDir };
  let stage: Stage;
  beforeAll(async () => {
    stage = await startStage({ env: { DATA_DIR: dataDir } });
  });
  afterEach(() => stage.endAgents());
  afterAll(() => stage.stop());

  async function told(agent: RawV2Agent): Promise<(string | null)[]> {
    const message = await agent.next(10_000);
    expect(message).toMatchObject({ type: 'event', channel: 'session' });
    const keys = decodeKeysNotice(message.payload);
    if (!keys.ok) throw new Error(keys.code);
    return fingerprints(keys.value);
  }

  it('are told in M4, and to connected agents when they change, so that a rotation loses nobody', async () => {
    const agent = await stage.connectedV2();
    const [first, none] = fingerprints(agent.grant.keys);
    expect(none).toBeNull();
    const { fingerprint: second } = prepareNextKey(location);
    stage.gateway.reload();
    expect(await told(agent)).toEqual([first, second]);
    const pins = [first ?? '', second];
    expect(fingerprints((await stage.connectedV2({ pins })).grant.keys)).toEqual([first, second]);

    promoteNextKey(location);
    stage.gateway.reload();
    expect(await told(agent)).toEqual([second, null]);
    // The session goes on under the key that it was made with; the next one is made with the new key.
    await agent.untilAcknowledged([agent.say()]);
    expect(fingerprints((await stage.connectedV2({ pins })).grant.keys)).toEqual([second, null]);
    const stale = await stage.dialV2({ pins: pins.slice(0, 1) });
    stale.socket.send(stale.initiator.m1);
    await expect(stale.answerToM2()).rejects.toThrow('unknown-gateway-key');
  });
});

describe('a handshake where it must be bound to the TLS connection', () => {
  const folder = newFolder();
  const authority = makeCertificate('Authority');
  const certificate = makeCertificate('gateway', { issuer: authority });
  const clock = new SteppedClock();
  let gateway: TestGateway;
  beforeAll(async () => {
    const [certPath, keyPath] = [join(folder, 'cert.pem'), join(folder, 'key.pem')];
    writeFileSync(certPath, certificate.certPem);
    writeFileSync(keyPath, certificate.keyPem);
    const env = { TLS_CERT_PATH: certPath, TLS_KEY_PATH: keyPath, LISTEN_HOST: '127.0.0.1' };
    gateway = await startTestGateway({ clock, env: { ...env, DATA_DIR: folder, AGENT_TLS_EXPORTER: 'required' } });
  });
  afterAll(() => gateway.stop());

  const dial = (options: Partial<V2DialOptions> = {}) =>
    RawV2Agent.dial({
      url: gateway.agentUrl.replace('ws:', 'wss:'),
      pins: [readKeys({ files: null, dataDir: folder }).current.fingerprint],
      socket: { ca: authority.certPem },
      ...options,
    });

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('succeeds over %s where the agent binds it', async (version) => {
    const agent = await dial({
      bindsToTls: true,
      socket: { ca: authority.certPem, minVersion: version, maxVersion: version },
    });
    agent.socket.send(agent.initiator.m1);
    agent.socket.send(await agent.answerToM2());
    expect((await agent.granted()).enrollment).toBe('trusted');
    agent.terminate();
  });

  it('fails where the agent does not, as a handshake that another connection carries on does', async () => {
    const unbound = await dial();
    unbound.socket.send(unbound.initiator.m1);
    // In the middle: the victim's frames over a connection of one's own.
    const [victim, thief] = [await dial({ bindsToTls: true }), await dial()];
    thief.socket.send(victim.initiator.m1);
    const m2 = await eventually(() => thief.frames[0]);
    expect(victim.initiator.takeM2(m2.data.toString()).ok).toBe(false);
    clock.advance(5_000);
    for (const agent of [unbound, thief]) expect(await agent.closed).toMatchObject({ code: 4001 });
    expect(unbound.frames).toEqual([]);
    victim.terminate();
  });
});
