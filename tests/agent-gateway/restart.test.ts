import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { encodeSecureMessage } from '../../src/agent-client/index.ts';
import { hasPostgres } from '../support/databases.ts';
import type { RawAgent } from './raw-agent.ts';
import { type Stage, startStage } from './stage.ts';

let stage: Stage;
afterEach(() => stage.stop());

const dataDir = mkdtempSync(join(tmpdir(), 'aegis-restart-'));
afterAll(() => rmSync(dataDir, { recursive: true }));

describe.skipIf(!hasPostgres())('a gateway that stops', () => {
  it('closes its links with 1012, keeps what was on its way, and is found again', async () => {
    stage = await startStage();
    const agents = await Promise.all(Array.from({ length: 20 }, () => stage.registered()));
    const ids = new Map<RawAgent, string[]>();
    for (const agent of agents)
      ids.set(
        agent,
        Array.from({ length: 50 }, (_none, n) => agent.report('anomalies', { n })),
      );
    await stage.gateway.restart();
    for (const agent of agents) expect(await agent.closed).toMatchObject({ code: 1012 });
    for (const [agent, sent] of ids) {
      expect((await stage.events(agent.agentId)).map((event) => event.messageId)).toEqual(sent);
      expect(await stage.agent(agent.agentId)).toMatchObject({ connected: false });
    }
    const [first] = agents;
    const back = await stage.dial({ agentId: first?.agentId ?? '', headers: first?.reconnectHeaders() ?? {} });
    expect(back.isOpen).toBe(true);
  });

  it('does the same for v2 agents, who send again what was not acknowledged', async () => {
    stage = await startStage({ env: { DATA_DIR: dataDir } });
    const agent = await stage.connectedV2();
    const ids: string[] = [];
    for (let record = 0; record < 20; record++) ids.push(...agent.send({}, {}, {}, {}, {}));
    await stage.gateway.restart();
    expect(await agent.closed).toEqual({ code: 1012, reason: 'The gateway restarts' });
    const acknowledged = new Set(agent.acknowledged);
    const again = await stage.connectedV2({ name: agent.name, key: agent.key });
    const rest = ids.filter((id) => !acknowledged.has(id));
    if (rest.length > 0) again.send(...rest.map((id) => ({ id })));
    await again.untilAcknowledged(rest);
    expect((await stage.events(agent.name)).map((event) => event.messageId)).toEqual(ids);
  });

  it('does not lose an agent in the middle of its handshake', async () => {
    stage = await startStage();
    const agents = await Promise.all(Array.from({ length: 20 }, () => stage.dial()));
    for (const agent of agents) agent.socket.send(agent.encodeAuthentication(agent.request()));
    await stage.gateway.restart();
    for (const agent of agents) {
      expect(await agent.readAuthAnswer()).toMatchObject({ success: true });
      expect(await agent.closed).toMatchObject({ code: 1012 });
    }
  });

  it('lets an agent finish its registration, which it would not get over losing, and closes its link then', async () => {
    stage = await startStage();
    const agents = await Promise.all(Array.from({ length: 10 }, () => stage.authenticated()));
    const challenges = await Promise.all(agents.map((agent) => agent.beginRegistration()));
    const restarted = stage.gateway.restart();
    for (const [index, agent] of agents.entries()) await agent.completeRegistration(challenges[index] ?? {});
    for (const agent of agents) {
      expect(agent.uid).not.toBeNull();
      expect(await agent.closed).toMatchObject({ code: 1012 });
    }
    await restarted;
  });

  it('knows after its restart what it has stored before', async () => {
    stage = await startStage();
    const agent = await stage.registered();
    const message = agent.message('anomalies', { n: 1 });
    agent.socket.send(encodeSecureMessage(message));
    await stage.event(agent.agentId, message.id);
    await stage.gateway.restart();
    const { agentId, key } = agent;
    const back = await stage.authenticated({ agentId, key, headers: agent.reconnectHeaders() });
    back.uid = agent.uid;
    for (const body of [{ n: 1 }, { n: 2 }]) back.report('anomalies', body, { id: message.id });
    await back.settled();
    const last = back.report('anomalies', { n: 3 });
    await stage.event(agentId, last);
    expect((await stage.events(agentId)).map((event) => event.messageId)).toEqual([message.id, last]);
    expect([await stage.refused('FRAME_REPLAYED'), await stage.refused('FRAME_ID_REUSED')]).toEqual([1, 1]);
  });

  it('ends within three seconds, also where peers never say anything', async () => {
    stage = await startStage();
    await Promise.all(Array.from({ length: 5 }, () => stage.dial()));
    const deaf = await stage.registered();
    deaf.socket.pause();
    const startedAt = performance.now();
    await stage.gateway.restart();
    expect(performance.now() - startedAt).toBeLessThan(3_000);
  });
});
