import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  AgentDocument,
  AgentsDocument,
  AnomaliesDocument,
  type ConsumerClient,
  ConsumerError,
  createConsumerClient,
  EventsDocument,
  GatewayDocument,
  MessageDocument,
  SendMessageDocument,
  ThreatsDocument,
} from '../../src/consumer-client/client.ts';
import { eventually } from '../support/eventually.ts';
import { type ConsumerStage, startConsumerStage } from './consumer-stage.ts';

let stage: ConsumerStage;
let client: ConsumerClient;
beforeAll(async () => {
  stage = await startConsumerStage();
  client = createConsumerClient({ url: stage.gateway.url, token: stage.gateway.token });
  await stage.connect('sensor');
});
afterAll(async () => {
  await client.close();
  await stage.stop();
});

describe('the consumer client', () => {
  test('asks, with and without variables', async () => {
    const { gateway } = await client.query(GatewayDocument);
    expect(gateway.connectedAgents).toBe(1);
    const { agents } = await client.query(AgentsDocument, { filter: { connected: true }, first: 10 });
    expect(agents.nodes.map((agent) => agent.agentId)).toEqual(['sensor']);
  });

  test('changes things', async () => {
    const { sendMessage } = await client.mutate(SendMessageDocument, {
      input: { agentId: 'sensor', channel: 'POLICIES', payload: { op: 'reload' } },
    });
    await eventually(async () => {
      const { message } = await client.query(MessageDocument, { id: sendMessage.message.id });
      return message?.status === 'DELIVERED';
    });
  });

  test('throws the code of what the gateway refuses', async () => {
    const failure = client.query(EventsDocument, { agentId: 'nobody' });
    await expect(failure).rejects.toBeInstanceOf(ConsumerError);
    await expect(failure).rejects.toMatchObject({ code: 'AGENT_NOT_FOUND', message: 'No such agent' });
    expect(await client.query(AgentDocument, { agentId: 'nobody' })).toEqual({ agent: null });
  });

  test('is refused without the right token, in questions and in subscriptions', async () => {
    const stranger = createConsumerClient({ url: stage.gateway.url, token: 'wrong' });
    await expect(stranger.query(GatewayDocument)).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    await expect(stranger.subscribe(AnomaliesDocument).next()).rejects.toMatchObject({ code: 'UNAUTHENTICATED' });
    await stranger.close();
  });

  test('says so where no gateway answers', async () => {
    const lost = createConsumerClient({ url: 'http://127.0.0.1:1', token: 'x' });
    await expect(lost.subscribe(AnomaliesDocument).next()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await lost.close();
  });

  test('streams, until its loop is left', async () => {
    const agent = await stage.connect('streamer');
    const anomalies = client.subscribe(AnomaliesDocument, { agentId: 'streamer' });
    const first = anomalies.next();
    await stage.untilStreaming(1);
    for (const severity of ['high', 'low']) await agent.sendEvent('anomalies', { severity });
    expect((await first).value.anomalies.severity).toBe('HIGH');
    for await (const { anomalies: anomaly } of anomalies) {
      expect(anomaly.severity).toBe('LOW');
      break;
    }
    await stage.untilStreaming(0);
  });

  test('ends a subscription that waits, from outside', async () => {
    const threats = client.subscribe(ThreatsDocument);
    const waiting = threats.next();
    await stage.untilStreaming(1);
    await threats.return?.();
    expect(await waiting).toMatchObject({ done: true });
    await stage.untilStreaming(0);
  });

  test('throws the code that ends a subscription, and one where the connection is lost and it is not to resume', async () => {
    await expect(client.subscribe(AnomaliesDocument, { agentId: 'nobody' }).next()).rejects.toMatchObject({
      code: 'AGENT_NOT_FOUND',
    });
    const other = createConsumerClient({ url: stage.gateway.url, token: stage.gateway.token, resume: false });
    const waiting = expect(other.subscribe(ThreatsDocument).next()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await stage.untilStreaming(1);
    await stage.gateway.restart();
    await waiting;
    await other.close();
  });
});
