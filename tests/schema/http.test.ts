import { request } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { type ConsumerStage, startConsumerStage } from './consumer-stage.ts';

let stage: ConsumerStage;
beforeAll(async () => {
  stage = await startConsumerStage();
});
afterAll(() => stage.stop());

const nested = (depth: number) => JSON.parse(`${'['.repeat(depth)}${']'.repeat(depth)}`);
const graphqlResponse = { accept: 'application/graphql-response+json' };

describe('a request that is no GraphQL', () => {
  test.each([
    ['what is not JSON', 'nope', 400, 'BAD_USER_INPUT'],
    ['no query', '{}', 400, 'BAD_USER_INPUT'],
    ['a query that is no text', '{"query":1}', 400, 'BAD_USER_INPUT'],
    ['variables that are no object', '{"query":"{__typename}","variables":[]}', 400, 'BAD_USER_INPUT'],
    ['a batch', '[{"query":"{__typename}"}]', 400, 'BAD_USER_INPUT'],
    ['an unknown parameter', '{"query":"{__typename}","more":1}', 400, 'BAD_USER_INPUT'],
  ])('%s', async (_name, body, status, code) => {
    for (const headers of [{}, graphqlResponse]) {
      const answered = await stage.post(body, { headers });
      expect(answered.status).toBe(status);
      expect(answered.answer.data).toBeUndefined();
      expect(answered.answer.errors?.map((error) => error.extensions.code)).toEqual([code]);
    }
  });
});

describe('a document or variables that are wrong', () => {
  test.each([
    ['what does not parse', '{', undefined, 'GRAPHQL_PARSE_FAILED'],
    ['a field that there is not', '{ nothing }', undefined, 'GRAPHQL_VALIDATION_FAILED'],
    [
      'a variable of another type',
      'query ($n: Int!) { agents(first: $n) { totalCount } }',
      { n: 'x' },
      'BAD_USER_INPUT',
    ],
    ['a variable that is missing', 'query ($n: Int!) { agents(first: $n) { totalCount } }', {}, 'BAD_USER_INPUT'],
    [
      'a time that is none',
      'query ($s: Severity) { events(minSeverity: $s) { nodes { id } } }',
      { s: 'WORST' },
      'BAD_USER_INPUT',
    ],
    [
      'a list that nests deeper than a parser can follow',
      `{ node(id: ${'['.repeat(4_900)}`,
      undefined,
      'GRAPHQL_PARSE_FAILED',
    ],
    ['more tokens than any sane document', `{${'a '.repeat(5_000)}}`, undefined, 'GRAPHQL_PARSE_FAILED'],
    ['more text than any sane document', `{__typename}#${'x'.repeat(100_000)}`, undefined, 'GRAPHQL_PARSE_FAILED'],
  ])('%s', async (_name, query, variables, code) => {
    const modern = await stage.post({ query, variables }, { headers: graphqlResponse });
    expect(modern.answer.errors?.map((error) => error.extensions.code)).toEqual([code]);
    expect(modern.answer.data).toBeUndefined();
    expect(modern.status).toBe(400);
    expect(modern.headers.get('content-type')).toBe('application/graphql-response+json; charset=utf-8');
    const legacy = await stage.post({ query, variables }, { headers: { accept: 'application/json' } });
    expect(legacy.answer).toEqual(modern.answer);
    expect(legacy.status).toBe(200);
  });

  test('several operations and none named', async () => {
    const { answer } = await stage.post({ query: 'query A { __typename } query B { __typename }' });
    expect(answer.errors?.[0]?.extensions.code).toBe('BAD_USER_INPUT');
  });
});

describe('values', () => {
  const send =
    'mutation ($p: JSON!) { sendMessage(input: {agentId: "nobody", channel: TESTS, payload: $p}) { message { id } } }';
  const codesOf = async (payload: unknown) => stage.codesOf(send, { p: payload });

  test('nest 32 deep and no deeper, in variables', async () => {
    expect(await codesOf(nested(32))).toEqual(['AGENT_NOT_FOUND']);
    expect(await codesOf(nested(33))).toEqual(['BAD_USER_INPUT']);
    const deep = `${'['.repeat(400_000)}${']'.repeat(400_000)}`;
    const { answer } = await stage.post(`{"query":${JSON.stringify(send)},"variables":{"p":${deep}}}`);
    expect(answer.errors?.map((error) => error.extensions.code)).toEqual(['BAD_USER_INPUT']);
  });

  test('nest 32 deep and no deeper, in the document', async () => {
    const inDocument = (depth: number) =>
      stage.codesOf(
        `mutation { sendMessage(input: {agentId: "nobody", channel: TESTS, payload: ${JSON.stringify(nested(depth))}}) { message { id } } }`,
      );
    // The input object is the first of the levels.
    expect(await inDocument(31)).toEqual(['AGENT_NOT_FOUND']);
    expect(await inDocument(32)).toEqual(['BAD_USER_INPUT']);
  });

  test('that Postgres cannot store are refused wherever they stand', async () => {
    const agent = 'query ($a: ID!) { agent(agentId: $a) { uid } }';
    expect(await stage.codesOf(agent, { a: 'a\0b' })).toEqual(['BAD_USER_INPUT']);
    expect(await stage.codesOf(agent, { a: 'a\ud800b' })).toEqual(['BAD_USER_INPUT']);
    expect(await codesOf({ 'a\0': 1 })).toEqual(['BAD_USER_INPUT']);
    expect(await codesOf(['ok', { deep: 'x\0' }])).toEqual(['BAD_USER_INPUT']);
    expect(await stage.codesOf('{ agent(agentId: "a\\u0000b") { uid } }')).toEqual(['BAD_USER_INPUT']);
    expect(await stage.codesOf(agent, { a: 'a\ud83d\ude00b' })).toEqual([]);
  });

  test('have no key __proto__', async () => {
    const variables = JSON.parse('{"p":{"__proto__":{"admin":true}}}');
    const body = `{"query":${JSON.stringify(send)},"variables":${JSON.stringify(variables)}}`;
    expect(body).toContain('__proto__');
    expect((await stage.post(body)).answer.errors?.[0]?.extensions.code).toBe('BAD_USER_INPUT');
    const literal =
      'mutation { sendMessage(input: {agentId: "nobody", channel: TESTS, payload: {__proto__: 1}}) { message { id } } }';
    expect(await stage.codesOf(literal)).toEqual(['BAD_USER_INPUT']);
  });
});

describe('bodies', () => {
  const bodyOf = (bytes: number) => {
    const empty = JSON.stringify({ query: '{ __typename }', variables: { filler: '' } });
    return JSON.stringify({ query: '{ __typename }', variables: { filler: 'x'.repeat(bytes - empty.length) } });
  };

  test('have at most 1 MiB', async () => {
    expect((await stage.post(bodyOf(1024 * 1024))).answer.data).toEqual({ __typename: 'Query' });
    const refused = await stage.post(bodyOf(1024 * 1024 + 1));
    expect(refused.status).toBe(413);
    expect(refused.answer.errors?.[0]?.extensions.code).toBe('PAYLOAD_TOO_LARGE');
  });

  test('have at most 1 MiB also where their length is not told', async () => {
    const status = await new Promise((resolve, reject) => {
      const outgoing = request(`${stage.gateway.url}/graphql`, {
        method: 'POST',
        headers: { authorization: `Bearer ${stage.gateway.token}`, 'content-type': 'application/json' },
      });
      outgoing.on('response', (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      outgoing.on('error', reject);
      outgoing.flushHeaders();
      outgoing.end(bodyOf(1024 * 1024 + 1));
    });
    expect(status).toBe(413);
  });
});

describe('requests that a foreign page could make', () => {
  const query = 'mutation { setAgentNote(agentId: "nobody", note: "x") { uid } }';

  test.each([
    ['a form', 'application/x-www-form-urlencoded', `query=${encodeURIComponent(query)}`],
    ['plain text', 'text/plain', JSON.stringify({ query })],
    ['a bare document', 'application/graphql', query],
    [
      'a multipart form',
      'multipart/form-data; boundary=x',
      `--x\r\nContent-Disposition: form-data; name="operations"\r\n\r\n${JSON.stringify({ query })}\r\n--x--\r\n`,
    ],
    ['a type that only looks like JSON', 'application/jsonx', JSON.stringify({ query })],
  ])('%s is refused, with credentials even', async (_name, type, body) => {
    const refused = await stage.post(body, { headers: { 'content-type': type } });
    expect(refused.status).toBe(415);
    expect(refused.answer.data).toBeUndefined();
  });

  test('a mutation by GET is refused, a query is not', async () => {
    const get = (text: string) => stage.gateway.fetch(`/graphql?query=${encodeURIComponent(text)}`);
    const refused = await get(query);
    expect(refused.status).toBe(405);
    expect(refused.headers.get('allow')).toBe('POST');
    expect(await refused.json()).toMatchObject({ errors: [{ extensions: { code: 'METHOD_NOT_ALLOWED' } }] });
    expect(await (await get('{ __typename }')).json()).toEqual({ data: { __typename: 'Query' } });
  });

  test('no foreign page is answered, nor allowed to ask', async () => {
    for (const origin of ['https://evil.example', 'null', 'http://127.0.0.1:1']) {
      const headers = { origin, 'access-control-request-method': 'POST' };
      for (const method of ['GET', 'OPTIONS']) {
        const response = await stage.gateway.fetch('/graphql?query={__typename}', { method, headers });
        expect(response.status).toBe(403);
        expect(response.headers.get('access-control-allow-origin')).toBeNull();
        expect(await response.json()).toMatchObject({ errors: [{ extensions: { code: 'ORIGIN_REFUSED' } }] });
      }
    }
    const own = await stage.gateway.fetch('/graphql?query={__typename}', { headers: { origin: stage.gateway.url } });
    expect(own.status).toBe(200);
    expect(own.headers.get('access-control-allow-origin')).toBeNull();
  });

  test('an upgrade from a foreign page is refused, one from our own host or from no page is not', async () => {
    const { host } = new URL(stage.gateway.url);
    expect(await upgradeStatus({})).toBe(101);
    expect(await upgradeStatus({ origin: `http://${host}` })).toBe(101);
    for (const origin of ['https://evil.example', 'null', `http://${host}.evil.example`, 'http://127.0.0.1:1'])
      expect(await upgradeStatus({ origin })).toBe(403);
  });
});

describe('ALLOWED_ORIGINS', () => {
  const [console, other] = ['https://console.example.com', 'http://localhost:3000'];
  let allowing: ConsumerStage;
  beforeAll(async () => {
    allowing = await startConsumerStage({ env: { ALLOWED_ORIGINS: `${console}, ${other}` } });
  });
  afterAll(() => allowing.stop());

  test('are told what they may ask, without credentials, and may read the answer', async () => {
    for (const origin of [console, other]) {
      const preflight = await allowing.gateway.fetch('/graphql', {
        method: 'OPTIONS',
        headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' },
        authorization: null,
      });
      expect(preflight.status).toBe(204);
      expect(Object.fromEntries(preflight.headers)).toMatchObject({
        'access-control-allow-origin': origin,
        'access-control-allow-methods': 'GET, POST',
        'access-control-allow-headers': 'authorization, content-type, last-event-id, traceparent, x-request-id',
        'access-control-max-age': '600',
        vary: 'Origin',
      });
      const { headers, status } = await allowing.post({ query: '{ __typename }' }, { headers: { origin } });
      expect(status).toBe(200);
      expect(headers.get('access-control-allow-origin')).toBe(origin);
      expect(headers.get('access-control-expose-headers')).toBe('retry-after, x-request-id');
      for (const answered of [preflight.headers, headers])
        expect(answered.get('access-control-allow-credentials')).toBeNull();
    }
  });

  test('may read refusals too', async () => {
    const { headers, status } = await allowing.post('{}', { headers: { origin: console }, authorization: null });
    expect(status).toBe(401);
    expect(headers.get('access-control-allow-origin')).toBe(console);
  });

  test('may open sockets; nobody may who is only like them', async () => {
    expect(await upgradeStatus({ origin: console }, allowing)).toBe(101);
    for (const origin of [`${console}.evil.example`, `${console}:8443`, 'http://console.example.com', 'null']) {
      expect(await upgradeStatus({ origin }, allowing)).toBe(403);
      const { status } = await allowing.post({ query: '{ __typename }' }, { headers: { origin } });
      expect(status).toBe(403);
    }
  });
});

function upgradeStatus(headers: Record<string, string>, at: ConsumerStage = stage): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(at.gateway.subscriptionUrl, 'graphql-transport-ws', { headers });
    socket.on('open', () => {
      socket.close();
      resolve(101);
    });
    socket.on('unexpected-response', (_request, response) => {
      resolve(response.statusCode ?? 0);
      socket.terminate();
    });
    socket.on('error', reject);
  });
}

describe('the path', () => {
  test('has no methods but GET and POST', async () => {
    for (const method of ['PUT', 'DELETE', 'PATCH']) {
      const response = await stage.gateway.fetch('/graphql', { method });
      expect(response.status).toBe(405);
      expect(await response.json()).toMatchObject({ errors: [{ extensions: { code: 'METHOD_NOT_ALLOWED' } }] });
    }
  });

  test('shows GraphiQL to browsers without credentials, and needs no other host for it', async () => {
    const response = await stage.gateway.fetch('/graphql', { headers: { accept: 'text/html' }, authorization: null });
    const page = await response.text();
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8');
    expect(page).not.toMatch(/<(script|link)[^>]+(src|href)="https?:/);
  });

  test('shows the page and no data to browsers that bring a query, as reloading GraphiQL does', async () => {
    const response = await stage.gateway.fetch('/graphql?query={__typename}', {
      headers: { accept: 'text/html' },
      authorization: null,
    });
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8');
    const asked = await stage.gateway.fetch('/graphql?query={__typename}', { headers: { accept: 'text/html,*/*' } });
    expect(await asked.json()).toEqual({ data: { __typename: 'Query' } });
  });

  test('shows no GraphiQL in production', async () => {
    const production = await startConsumerStage({ env: { NODE_ENV: 'production' } });
    try {
      const response = await production.gateway.fetch('/graphql', {
        headers: { accept: 'text/html' },
        authorization: null,
      });
      expect(response.status).toBe(401);
      expect(await production.ask('{ __typename }')).toEqual({ __typename: 'Query' });
    } finally {
      await production.stop();
    }
  });
});
