import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type Stage, startStage } from './stage.ts';

let stage: Stage;
beforeAll(async () => {
  stage = await startStage();
});
afterEach(() => stage.endAgents());
afterAll(() => stage.stop());

describe('a v2 agent', () => {
  it('is let in, and told of its session in the first record', async () => {
    const agent = await stage.connectedV2();
    const { grant } = agent;
    expect(grant).toMatchObject({
      agentUid: (await stage.agent(agent.name))?.uid,
      ...{ enrollment: 'trusted', heartbeatMs: 30_000, keys: { next: null } },
      limits: { maxRecordBytes: 327_680, maxBatchMessages: 256, maxInFlightMessages: 1_024, ackTimeoutMs: 30_000 },
    });
  });

  it('has what it reports stored, shown and acknowledged', async () => {
    const agent = await stage.connectedV2();
    const ids = agent.send({ payload: { severity: 'high' } }, { channel: 'agent.threats' });
    await agent.untilAcknowledged(ids);
    const events = await stage.events(agent.name);
    expect(events.map(({ messageId, trusted, sealed }) => ({ messageId, trusted, sealed }))).toEqual(
      ids.map((messageId) => ({ messageId, trusted: true, sealed: false })),
    );
    expect(events[0]).toMatchObject({ kind: 'ANOMALIES', severity: 'HIGH', payload: { severity: 'high' } });
  });

  it('gets a command, which is DELIVERED once the agent has acknowledged it', async () => {
    const agent = await stage.connectedV2();
    const messageId = await stage.send(agent.name);
    const command = await agent.next();
    expect(command).toMatchObject({ type: 'request', channel: 'backend.policies', payload: { op: 'reload' } });
    await stage.untilStatus(messageId, 'SENT');
    agent.acknowledge(command.id);
    await stage.untilStatus(messageId, 'DELIVERED');
  });
});
