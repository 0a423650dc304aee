import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  connectAgent,
  createFileStore,
  type NodeAgentOptions,
  type V2Agent,
  wsTransport,
} from '../../../src/agent-client/v2/node/index.ts';
import { freshName } from '../../agent-gateway/raw-agent.ts';
import { type Stage, startStage } from '../../agent-gateway/stage.ts';
import { makeCertificate } from '../../support/certificates.ts';
import { eventually } from '../../support/eventually.ts';
import { startTestGateway } from '../../support/gateway.ts';

let stage: Stage;
let directory: string;
let agents: V2Agent[] = [];
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'agents-'));
  // Sessions so short that agents have to renew them while a test looks; keys that outlive a restart.
  stage = await startStage({ env: { SESSION_TIMEOUT: '3s', DATA_DIR: join(directory, 'gateway') } });
});
afterEach(async () => {
  await Promise.all(agents.map((agent) => agent.close()));
  agents = [];
});
afterAll(async () => {
  await stage.stop();
  await rm(directory, { recursive: true, force: true });
});

async function start(options: Partial<NodeAgentOptions> = {}): Promise<V2Agent> {
  const { agentId = freshName() } = options;
  const agent = await connectAgent({
    ...{ url: stage.gateway.agentUrl, agentId, pins: 'trust-first', store: createFileStore(join(directory, agentId)) },
    ...{ timings: { backoffBaseMs: 100 } },
    ...options,
  });
  agents.push(agent);
  return agent;
}

describe('against the gateway, the client', () => {
  it('has its reports stored, once each, and its commands delivered and answered', async () => {
    const agent = await start();
    agent.onCommand(({ payload }) => ({ did: payload }));
    await Promise.all(
      Array.from({ length: 50 }, (_, index) => agent.report('logs', { index }, { id: `${agent.agentId}-${index}` })),
    );
    expect(await stage.events(agent.agentId)).toHaveLength(50);
    const id = await stage.send(agent.agentId);
    await stage.untilStatus(id, 'DELIVERED');
    await eventually(async () => {
      const data = await stage.ask('query ($id: ID!) { message(id: $id) { replies { payload } } }', { id });
      return JSON.stringify(data).includes('"did":{"op":"reload"}');
    });
    await eventually(() => agent.statistics.outboxItems === 0);
  });

  it('takes no report twice and loses none while sessions end under it, and is never seen to go', async () => {
    const agent = await start();
    await agent.ready();
    const ids: string[] = [];
    const reports: Promise<void>[] = [];
    while (agent.statistics.links < 3) {
      const id = `${agent.agentId}-${ids.length}`;
      ids.push(id);
      reports.push(agent.report('logs', {}, { id }));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await Promise.all(reports);
    const stored = (await stage.events(agent.agentId)).map(({ messageId }) => messageId);
    expect(stored).toEqual(ids);
    expect(agent.statistics.failedAttempts).toBe(0);
  });

  it('goes on after the gateway was restarted, and after it was itself, with the key that it was known by', async () => {
    const agent = await start();
    await agent.report('status', { up: 1 });
    const before = await stage.agent(agent.agentId);
    await stage.gateway.restart();
    await agent.report('status', { up: 2 });
    await agent.close();
    const again = await start({ agentId: agent.agentId });
    await again.report('status', { up: 3 });
    expect(await stage.events(agent.agentId)).toHaveLength(3);
    const after = await stage.agent(agent.agentId);
    expect([after?.uid, after?.keyFingerprint]).toEqual([before?.uid, before?.keyFingerprint]);
  });

  it('changes its key, and is trusted with the new one', async () => {
    const agent = await start();
    await agent.ready();
    const before = (await stage.agent(agent.agentId))?.keyFingerprint;
    await agent.rotateKey();
    await eventually(async () => (await stage.agent(agent.agentId))?.keyFingerprint !== before);
    await agent.report('status', {});
    expect((await stage.events(agent.agentId)).map(({ trusted }) => trusted)).toEqual([true]);
  });
});

describe('over TLS', () => {
  it('the handshake is bound to the connection where that is asked for, and let in where the gateway requires it', async () => {
    const certificate = makeCertificate('gateway');
    const files = { cert: join(directory, 'cert.pem'), key: join(directory, 'key.pem') };
    await writeFile(files.cert, certificate.certPem);
    await writeFile(files.key, certificate.keyPem, { mode: 0o600 });
    const tls = { TLS_CERT_PATH: files.cert, TLS_KEY_PATH: files.key, AGENT_TLS_EXPORTER: 'required' };
    const gateway = await startTestGateway({ env: { ...tls, DATA_DIR: join(directory, 'tls') } });
    try {
      const url = gateway.agentUrl.replace('ws:', 'wss:');
      const transport = wsTransport({ ca: certificate.certPem });
      await (await start({ url, transport, bindsChannel: true })).ready();
      const unbound = await start({ url, transport });
      const code = await new Promise((resolve) => {
        unbound.onStatus((status) => status.type === 'closed' && resolve(status.code));
      });
      expect(code).toBe(4001);
    } finally {
      await Promise.all(agents.map((agent) => agent.close()));
      await gateway.stop();
    }
  });
});
