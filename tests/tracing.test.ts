import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type Stage, startStage } from './agent-gateway/stage.ts';
import { hasPostgres } from './support/databases.ts';
import { eventually } from './support/eventually.ts';

const attributeSchema = z.object({
  key: z.string(),
  value: z.object({ stringValue: z.string().optional(), intValue: z.coerce.number().optional() }),
});
const spanSchema = z.object({
  traceId: z.string(),
  parentSpanId: z.string().optional(),
  name: z.string(),
  kind: z.int(),
  startTimeUnixNano: z.coerce.bigint(),
  endTimeUnixNano: z.coerce.bigint(),
  attributes: z.array(attributeSchema),
  status: z.object({ code: z.int() }),
});
const exportSchema = z.object({
  resourceSpans: z.array(
    z.object({
      resource: z.object({ attributes: z.array(attributeSchema) }),
      scopeSpans: z.array(z.object({ spans: z.array(spanSchema) })),
    }),
  ),
});
const [server, internal, producer] = [2, 1, 4];
const failed = 2;

/** A collector of OTLP over HTTP that keeps what it is sent. */
let collector: Server;
let collected: z.infer<typeof exportSchema>[];
let stage: Stage;
beforeEach(async () => {
  collected = [];
  collector = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (chunk: string) => (body += chunk));
    request.on('end', () => {
      if (request.url === '/otlp/v1/traces') collected.push(exportSchema.parse(JSON.parse(body)));
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    });
  });
  await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
  const address: AddressInfo | string | null = collector.address();
  if (typeof address !== 'object' || address === null) throw new Error('no port');
  stage = await startStage({ env: { OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${address.port}/otlp` } });
});
afterEach(() => void collector.close());

/** The spans with this name, with their attributes by name. The gateway stops, and sends what it has. */
async function spansAfterStop() {
  await stage.stop();
  return collected.flatMap(({ resourceSpans }) =>
    resourceSpans.flatMap(({ resource, scopeSpans }) =>
      scopeSpans.flatMap(({ spans }) =>
        spans.map((span) => ({
          ...span,
          service: valuesOf(resource.attributes)['service.name'],
          attributes: valuesOf(span.attributes),
        })),
      ),
    ),
  );
}

function valuesOf(attributes: z.infer<typeof attributeSchema>[]): Record<string, string | number | undefined> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, value.stringValue ?? value.intValue]));
}

describe('traces', () => {
  it('tell of operations, messages and events', async () => {
    const [traceId, parentSpanId] = ['0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331'];
    const agent = await stage.registered();
    await stage.event(agent.agentId, agent.report('status', {}));
    const messageId = await stage.send(agent.agentId);
    await stage.untilStatus(messageId, 'DELIVERED');
    await stage.gateway.fetch('/graphql', {
      method: 'POST',
      headers: { 'content-type': 'application/json', traceparent: `00-${traceId}-${parentSpanId}-01` },
      body: JSON.stringify({ query: 'query Asked { gateway { version } }' }),
    });
    await expect(stage.ask('mutation { cancelMessage(id: "none") { id } }')).rejects.toThrow();

    const spans = await spansAfterStop();
    expect(new Set(spans.map(({ service }) => service))).toEqual(new Set(['aegis-gateway']));
    for (const { startTimeUnixNano, endTimeUnixNano } of spans)
      expect(endTimeUnixNano).toBeGreaterThanOrEqual(startTimeUnixNano);
    expect(spans.filter((span) => span.traceId === traceId)).toMatchObject([
      {
        ...{ name: 'query', kind: server, parentSpanId },
        attributes: { 'graphql.operation.type': 'query', 'graphql.operation.name': 'Asked' },
      },
    ]);
    const mutations = spans.filter(({ name }) => name === 'mutation');
    expect(mutations.map(({ status }) => status.code === failed)).toEqual([false, true]);
    expect(spans.filter(({ name }) => name === 'message')).toMatchObject([
      {
        kind: producer,
        attributes: {
          'aegis.message.status': 'delivered',
          'aegis.message.kind': 'policies',
          'aegis.message.attempts': 1,
          'aegis.agent.uid': agent.uid,
        },
      },
    ]);
    const groups = spans.filter(({ name }) => name === 'store events');
    expect(groups.length).toBeGreaterThan(0);
    for (const { kind, attributes } of groups) {
      expect(kind).toBe(internal);
      expect(attributes['aegis.events.count']).toBeGreaterThan(0);
    }
  });

  it.runIf(hasPostgres())(
    'tell of a message beneath the request that sent it, also where another gateway delivers it',
    async () => {
      const [traceId, parentSpanId] = ['0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331'];
      const agent = await stage.connectedV2();
      const other = await startStage({ databaseUrl: stage.gateway.databaseUrl ?? '' });
      const post = (path: string, body: object) =>
        other.gateway.fetch(path, {
          method: 'POST',
          headers: { 'content-type': 'application/json', traceparent: `00-${traceId}-${parentSpanId}-01` },
          body: JSON.stringify(body),
        });
      const message = { channel: 'policies', message: {}, message_type: 'request' };
      await post(`/api/v1/agents/${agent.name}/send`, message);
      await post('/api/v1/agents/broadcast', message);
      await other.stop();
      agent.acknowledge((await agent.next()).id);
      agent.acknowledge((await agent.next()).id);
      const delivered = 'aegis_messages_total{status="delivered"}';
      await eventually(async () => (await stage.metric(delivered)) === 2, 20_000);

      const messages = (await spansAfterStop()).filter(({ name }) => name === 'message');
      expect(messages).toMatchObject([
        { traceId, parentSpanId },
        { traceId, parentSpanId },
      ]);
    },
  );

  it('tell of a subscription what it took to begin', async () => {
    const reader = await stage.gateway.fetch('/graphql', {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
      body: JSON.stringify({ query: 'subscription Watch { threats { messageId } }' }),
    });
    expect(reader.status).toBe(200);
    const spans = await spansAfterStop();
    expect(spans.filter(({ name }) => name === 'subscription')).toMatchObject([
      { kind: server, attributes: { 'graphql.operation.name': 'Watch' } },
    ]);
    await reader.body?.cancel().catch(() => {});
  });

  it('hold nothing up where nobody takes them', async () => {
    collector.closeAllConnections();
    collector.close();
    expect(await stage.ask('{ __typename }')).toEqual({ __typename: 'Query' });
    expect(await spansAfterStop()).toEqual([]);
  });
});
