import { GraphQLInt, GraphQLObjectType, GraphQLSchema, GraphQLString } from 'graphql';
import { createClient } from 'graphql-ws';
import { afterEach, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { createAuthenticate } from '../../src/access/authenticate.ts';
import { createRateLimits } from '../../src/access/rate-limits.ts';
import { AegisError } from '../../src/errors.ts';
import { createDocuments } from '../../src/http/documents.ts';
import { createGraphqlEndpoint, type GraphqlEndpoint } from '../../src/http/graphql.ts';
import { createHttpServer, type HttpServer } from '../../src/http/server.ts';
import { eventually } from '../support/eventually.ts';
import { answerSchema } from './consumer-stage.ts';

/** The endpoint alone, on a schema whose fields fail and stream in every way. */

const token = 'a-token-for-tests';
const secret = 'connection to 10.1.2.3 as postgres refused';
let server: HttpServer | null = null;
let endpoint: GraphqlEndpoint | null = null;

afterEach(async () => {
  await endpoint?.close();
  await server?.close(0);
});

const failing = (error: unknown) => ({
  type: GraphQLString,
  resolve() {
    throw error;
  },
});

async function* count(): AsyncGenerator<number> {
  for (let number = 0; ; number++) {
    yield number;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function silent(onReturn: () => void): AsyncIterableIterator<never> {
  let end: (result: IteratorResult<never>) => void = () => {};
  return {
    next: () => new Promise((resolve) => (end = resolve)),
    async return() {
      onReturn();
      end({ done: true, value: undefined });
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

async function start(): Promise<{
  url: string;
  logged: unknown[];
  requestIds: string[];
  returned: () => number;
  running: GraphqlEndpoint;
}> {
  const logged: unknown[] = [];
  const requestIds: string[] = [];
  let returned = 0;
  const schema = new GraphQLSchema({
    query: new GraphQLObjectType({
      name: 'Query',
      fields: {
        foreseen: failing(new AegisError('QUEUE_FULL')),
        unforeseen: failing(new Error(secret)),
        notEvenAnError: failing(secret),
        badNumber: { type: GraphQLInt, resolve: () => secret },
      },
    }),
    subscription: new GraphQLObjectType({
      name: 'Subscription',
      fields: {
        numbers: { type: GraphQLInt, subscribe: count, resolve: (number: number) => number },
        silent: { type: GraphQLInt, subscribe: () => silent(() => returned++) },
        refused: {
          type: GraphQLInt,
          subscribe() {
            throw new Error(secret);
          },
        },
        breaking: {
          type: GraphQLInt,
          async *subscribe() {
            yield 1;
            throw new Error(secret);
          },
          resolve: (number: number) => number,
        },
        expiring: {
          type: GraphQLInt,
          async *subscribe() {
            yield 1;
            throw new AegisError('CURSOR_EXPIRED');
          },
          resolve: (number: number) => number,
        },
        overrun: {
          type: GraphQLInt,
          async *subscribe() {
            yield 1;
            throw new AegisError('SLOW_CONSUMER');
          },
          resolve: (number: number) => number,
        },
      },
    }),
  });
  const running = createGraphqlEndpoint({
    schema,
    authenticate: createAuthenticate(token),
    watch: () => () => {},
    contextFor: () => ({}),
    graphiql: false,
    introspection: true,
    limits: { maxDepth: 15, maxCost: 50_000 },
    rateLimits: createRateLimits({ consumerPerSecond: null, addressPerSecond: null }, null),
    streamLimit: null,
    allowedOrigins: [],
    documents: createDocuments('off', null),
    onOperation: () => {},
    logError(error, _context, requestId) {
      logged.push(error);
      requestIds.push(requestId);
    },
  });
  endpoint = running;
  server = createHttpServer(
    { agentPath: '/none', agentUpgrade: () => {}, graphql: running, rest: async () => new Response() },
    {
      listenOn: { host: '127.0.0.1', port: 0 },
      tls: null,
      trustProxy: [],
      readBufferBytes: 1_024,
      writeBufferBytes: 1_024,
    },
  );
  return {
    url: `http://127.0.0.1:${await server.listen()}/graphql`,
    logged,
    requestIds,
    returned: () => returned,
    running,
  };
}

const authorization = `Bearer ${token}`;

async function post(url: string, query: string, accept = 'application/json') {
  const headers = { authorization, accept, 'content-type': 'application/json' };
  return fetch(url, { method: 'POST', headers, body: JSON.stringify({ query }) });
}

function socketTo(url: string) {
  const client = createClient({
    url: url.replace('http', 'ws'),
    webSocketImpl: WebSocket,
    connectionParams: { authorization },
    retryAttempts: 0,
  });
  const closed = new Promise<unknown>((resolve) => {
    client.on('closed', resolve);
  });
  return { client, closed };
}

describe('an error of a field', () => {
  test('keeps its code and text where it was foreseen', async () => {
    const { url, logged } = await start();
    const response = await post(url, '{ foreseen }');
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({
      data: { foreseen: null },
      errors: [
        {
          message: 'Too many messages wait for this agent',
          locations: [{ line: 1, column: 3 }],
          path: ['foreseen'],
          extensions: { code: 'QUEUE_FULL' },
        },
      ],
    });
    expect(logged).toEqual([]);
  });

  test.each(['unforeseen', 'notEvenAnError', 'badNumber'])(
    'is masked and logged where it was not: %s',
    async (field) => {
      const { url, logged } = await start();
      const text = await (await post(url, `{ ${field} }`)).text();
      expect(text).not.toContain('10.1.2.3');
      expect(answerSchema.parse(JSON.parse(text)).errors).toEqual([
        { message: 'Something went wrong here', path: [field], extensions: { code: 'INTERNAL_SERVER_ERROR' } },
      ]);
      expect(String(logged[0])).toContain('10.1.2.3');
      expect(logged).toHaveLength(1);
    },
  );
});

describe('an error that is masked', () => {
  const headers = { authorization, 'content-type': 'application/json', 'x-request-id': 'caller-1' };

  test('is found in the log by the id of its request', async () => {
    const { url, requestIds } = await start();
    const answer = await fetch(url, { method: 'POST', headers, body: '{"query":"{ unforeseen }"}' });
    expect(answer.headers.get('x-request-id')).toBe('caller-1');
    expect(requestIds).toEqual(['caller-1']);
  });

  test('is found by the id of the upgrade over WebSocket', async () => {
    const { url, requestIds } = await start();
    class Socket extends WebSocket {
      constructor(address: string, protocols: string[]) {
        super(address, protocols, { headers: { 'x-request-id': 'caller-2' } });
      }
    }
    const client = createClient({
      ...{ url: url.replace('http', 'ws'), webSocketImpl: Socket, retryAttempts: 0 },
      connectionParams: { authorization },
    });
    await client.iterate({ query: '{ unforeseen }' }).next();
    expect(requestIds).toEqual(['caller-2']);
    await client.dispose();
  });
});

describe('an error of a subscription', () => {
  const cases = [
    ['refused', 'INTERNAL_SERVER_ERROR'],
    ['breaking', 'INTERNAL_SERVER_ERROR'],
    ['expiring', 'CURSOR_EXPIRED'],
  ] as const;

  test.each(cases)('%s has its code over SSE, and no secret', async (field, code) => {
    const { url, running } = await start();
    const text = await (await post(url, `subscription { ${field} }`, 'text/event-stream')).text();
    expect(text).toContain(`"code":"${code}"`);
    expect(text).not.toContain('10.1.2.3');
    expect(running.activeSubscriptions()).toBe(0);
  });

  test.each(cases)('%s has its code over WebSocket, and no secret', async (field, code) => {
    const { url, running } = await start();
    const { client } = socketTo(url);
    const seen: unknown[] = [];
    try {
      for await (const result of client.iterate({ query: `subscription { ${field} }` })) seen.push(result);
    } catch (error) {
      seen.push(error);
    }
    expect(JSON.stringify(seen)).toContain(`"code":"${code}"`);
    expect(JSON.stringify(seen)).not.toContain('10.1.2.3');
    expect(running.activeSubscriptions()).toBe(0);
    await client.dispose();
  });

  test('closes the socket of a slow reader with 1013', async () => {
    const { url, running } = await start();
    const { client, closed } = socketTo(url);
    const results = client.iterate({ query: 'subscription { overrun }' });
    expect(await results.next()).toMatchObject({ value: { data: { overrun: 1 } } });
    await results.next().catch(() => null);
    expect(await closed).toMatchObject({ code: 1013 });
    expect(running.activeSubscriptions()).toBe(0);
  });
});

describe('subscriptions are counted', () => {
  test('from their start to their end, over both transports', async () => {
    const { url, running, returned } = await start();
    const { client } = socketTo(url);
    const streams = [1, 2, 3].map(() => client.iterate({ query: 'subscription { silent }' }));
    const pending = streams.map((stream) => stream.next().catch(() => null));
    const cut = new AbortController();
    const headers = { authorization, accept: 'text/event-stream', 'content-type': 'application/json' };
    await fetch(url, { method: 'POST', headers, body: '{"query":"subscription { silent }"}', signal: cut.signal });
    await eventually(() => running.activeSubscriptions() === 4);
    await streams[0]?.return?.();
    await eventually(() => running.activeSubscriptions() === 3);
    client.terminate();
    await eventually(() => running.activeSubscriptions() === 1);
    cut.abort();
    await eventually(() => running.activeSubscriptions() === 0);
    expect(returned()).toBe(4);
    await Promise.all(pending);
  });

  test('and a busy one ends while it streams', async () => {
    const { url, running } = await start();
    const { client } = socketTo(url);
    let seen = 0;
    for await (const { data } of client.iterate({ query: 'subscription { numbers }' })) {
      expect(data).toEqual({ numbers: seen });
      if (++seen === 100) break;
    }
    await eventually(() => running.activeSubscriptions() === 0);
    await client.dispose();
  });

  test('and all end when the endpoint closes, which then takes no more', async () => {
    const { url, running, returned } = await start();
    const { client, closed } = socketTo(url);
    const pending = client
      .iterate({ query: 'subscription { silent }' })
      .next()
      .catch(() => null);
    await eventually(() => running.activeSubscriptions() === 1);
    await running.close();
    expect(running.activeSubscriptions()).toBe(0);
    expect(returned()).toBe(1);
    expect(await closed).toMatchObject({ code: 1012 });
    await pending;
    const response = await post(url, '{ foreseen }');
    expect(response.status).toBe(503);
    expect(response.headers.get('retry-after')).toBe('1');
    const late = new WebSocket(url.replace('http', 'ws'), 'graphql-transport-ws');
    const status = await new Promise((resolve) => {
      late.on('unexpected-response', (_request, { statusCode }) => resolve(statusCode));
    });
    late.on('error', () => {});
    late.terminate();
    expect(status).toBe(503);
  });
});

describe('a socket', () => {
  test.each([
    ['speaks no protocol that we know', [], '{"type":"connection_init"}', 4406],
    ['says what is no message', ['graphql-transport-ws'], 'nonsense', 4400],
    ['sends a frame over 1 MiB', ['graphql-transport-ws'], 'x'.repeat(1024 * 1024 + 1), 1009],
  ])('that %s is closed', async (_name, protocol, message, code) => {
    const { url } = await start();
    const socket = new WebSocket(url.replace('http', 'ws'), protocol);
    socket.on('open', () => socket.send(message));
    socket.on('error', () => {});
    expect(await new Promise((resolve) => socket.on('close', resolve))).toBe(code);
  });
});
