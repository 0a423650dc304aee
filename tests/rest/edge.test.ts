import { request } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type Call, plainError, problemIn } from './rest-caller.ts';
import { type RestUnderTest, startRest } from './rest-under-test.ts';

let rest: RestUnderTest;
let call: Call;

beforeAll(async () => {
  rest = await startRest();
  call = rest.call;
});
afterAll(() => rest.close());

/** Every route that the contract names, with a path that could serve. */
const routes: readonly [method: string, template: string, path: string][] = [
  ['get', '/api/v1/agents/{id}/status', '/api/v1/agents/a/status'],
  ['post', '/api/v1/agents/{id}/send', '/api/v1/agents/a/send'],
  ['post', '/api/v1/agents/broadcast', '/api/v1/agents/broadcast'],
  ['get', '/api/v1/messages/{message_id}', '/api/v1/messages/00000000-0000-4000-8000-000000000000'],
  ['get', '/agents', '/agents'],
  ['get', '/agents/{uid}', '/agents/a'],
  ['put', '/agents/{uid}/labels', '/agents/a/labels'],
  ['put', '/agents/{uid}/note', '/agents/a/note'],
  ['get', '/metrics', '/metrics'],
  ['post', '/agents/register/init', '/agents/register/init'],
  ['post', '/agents/register/complete', '/agents/register/complete'],
  ['get', '/healthz', '/healthz'],
  ['get', '/readyz', '/readyz'],
  ['get', '/openapi.json', '/openapi.json'],
];
const openTemplates = new Set([
  '/agents/register/init',
  '/agents/register/complete',
  '/healthz',
  '/readyz',
  '/openapi.json',
]);
const protectedRoutes = routes.filter(([, template]) => !openTemplates.has(template));
const openRoutes = routes.filter(([, template]) => openTemplates.has(template));

const wrongCredentials: readonly [name: string, headers: Record<string, string>][] = [
  ['none', {}],
  ['a wrong token', { authorization: 'Bearer wrong-token-0123456789' }],
  ['an empty token', { authorization: 'Bearer ' }],
  ['another scheme', { authorization: 'Basic YWRtaW46YWRtaW4=' }],
];

describe('without credentials', () => {
  it.each(protectedRoutes)('%s %s is refused', async (method, _template, path) => {
    for (const [, headers] of wrongCredentials) {
      const answer = await call(method.toUpperCase(), path, { token: null, headers });
      expect(answer.status).toBe(401);
      expect(answer.headers.get('www-authenticate')).toBe('Bearer');
      if (path.startsWith('/agents')) expect(answer).toMatchObject(plainError(401, 'Unauthorized'));
      else expect(problemIn(answer)).toMatchObject({ code: 'UNAUTHENTICATED', instance: path });
    }
  });

  it.each(openRoutes)('%s %s is open', async (method, _template, path) => {
    const { status, text } = await call(method.toUpperCase(), path, { token: null });
    expect(status).not.toBe(401);
    expect(text).not.toBe('Unauthorized');
  });

  it.each([
    ['GET', '/agents/'],
    ['GET', '/agents/a/other'],
    ['GET', '/agents/a/b/c'],
    ['DELETE', '/agents/a'],
    ['OPTIONS', '/agents'],
    ['HEAD', '/agents'],
    ['GET', '/agents/register'],
    ['PUT', '/agents/register/labels'],
    ['POST', '/agents/a/labels'],
    ['GET', '/api/v1'],
    ['GET', '/api/v1/nothing'],
    ['DELETE', '/api/v1/agents/a/send'],
    ['POST', '/metrics'],
  ])('%s %s tells nothing but that they are wanted', async (method, path) => {
    expect(await call(method, path, { token: null })).toMatchObject({ status: 401 });
  });

  it('does not read a body first', async () => {
    const answer = await call('PUT', '/agents/a/note', { token: null, body: '{' });
    expect(answer).toMatchObject(plainError(401, 'Unauthorized'));
  });
});

describe('with credentials', () => {
  it.each(protectedRoutes)('%s %s is let through', async (method, _template, path) => {
    expect((await call(method.toUpperCase(), path)).status).not.toBe(401);
  });

  it('takes the scheme without regard to case', async () => {
    const headers = { authorization: `bEARER ${rest.token}` };
    expect(await call('GET', '/agents', { token: null, headers })).toMatchObject({ status: 200 });
  });
});

describe('methods', () => {
  it.each(routes)('%s %s: any other is 405, and Allow tells which there are', async (method, _template, path) => {
    for (const other of ['DELETE', 'PATCH', method === 'get' ? 'POST' : 'GET']) {
      const answer = await call(other, path);
      expect(answer.status).toBe(405);
      expect(answer.headers.get('allow')?.split(', ')).toContain(method.toUpperCase());
      if (path.startsWith('/agents')) expect(answer).toMatchObject(plainError(405, 'Method not allowed'));
      else expect(problemIn(answer)).toMatchObject({ code: 'METHOD_NOT_ALLOWED' });
    }
  });

  it.each(routes)('OPTIONS beside %s %s answers what there is', async (method, _template, path) => {
    const answer = await call('OPTIONS', path);
    expect(answer).toMatchObject({ status: 204, text: '' });
    expect(answer.headers.get('allow')?.split(', ')).toContain(method.toUpperCase());
  });

  it.each(['/agents', '/healthz', '/metrics', '/openapi.json'])(
    'HEAD %s answers as GET does, without a body',
    async (path) => {
      const [head, get] = [await call('HEAD', path), await call('GET', path)];
      expect(head).toMatchObject({ status: get.status, contentType: get.contentType, text: '' });
    },
  );
});

describe('unknown paths', () => {
  it.each([
    '/',
    '/nothing',
    '/agentsx',
    '/healthz/',
    '/api',
    '/api/v1/',
    '/api/v1/agents/a',
    '/api/v1/agents/a/status/',
    '/api/v2/agents',
  ])('%s is a problem 404', async (path) => {
    expect(problemIn(await call('GET', path))).toMatchObject({ status: 404, code: 'NOT_FOUND', instance: path });
  });
});

describe('bodies', () => {
  const maxBytes = 1_048_576;
  /** A note's body of exactly so many bytes; what is too long for a note is still a body. */
  const noteBody = (bytes: number) => `{"note":"${'n'.repeat(bytes - '{"note":""}'.length)}"}`;

  it('are read up to 1 MiB, and not one byte more', async () => {
    const put = (bytes: number) => call('PUT', '/agents/a/note', { body: noteBody(bytes) });
    expect(await put(maxBytes)).toMatchObject({ status: 400 });
    expect(await put(maxBytes + 1)).toMatchObject(plainError(413, 'The body is too large'));
  });

  it('are problems on /api/v1 where they are too large', async () => {
    const answer = await call('POST', '/api/v1/agents/a/send', { body: ' '.repeat(maxBytes + 1) });
    expect(problemIn(answer)).toMatchObject({ status: 413, code: 'PAYLOAD_TOO_LARGE' });
  });

  it('are counted where no length is told', async () => {
    expect(await sendChunked(`${rest.url}/agents/register/init`, 'POST', [' '.repeat(maxBytes), ' '])).toBe(413);
    expect(await sendChunked(`${rest.url}/agents/register/init`, 'POST', ['{"agent_', 'pubkey":1}'])).toBe(400);
  });

  it('of a million nested arrays are refused', async () => {
    const body = '['.repeat(500_000) + ']'.repeat(500_000);
    expect(problemIn(await call('POST', '/api/v1/agents/broadcast', { body }))).toMatchObject({
      code: 'BAD_USER_INPUT',
    });
    expect(await call('PUT', '/agents/a/labels', { body })).toMatchObject({ status: 400 });
  });
});

describe('operations', () => {
  it('GET /healthz tells that the process lives', async () => {
    expect(await call('GET', '/healthz', { token: null })).toMatchObject({ status: 200, json: { status: 'ok' } });
  });

  it('GET /readyz tells what it checked', async () => {
    const answer = await call('GET', '/readyz', { token: null });
    expect(answer.status).toBe(200);
    const readiness = z.strictObject({ ready: z.literal(true), checks: z.record(z.string(), z.string()) });
    expect(Object.keys(readiness.parse(answer.json).checks)).toContain('database');
  });

  it('GET /metrics answers the text format of Prometheus', async () => {
    const answer = await call('GET', '/metrics');
    expect(answer.status).toBe(200);
    expect(answer.contentType).toMatch(/^text\/plain; version=0\.0\.4/);
    expect(answer.text).toMatch(/^# HELP /m);
  });
});

const documentSchema = z.object({
  openapi: z.literal('3.1.0'),
  info: z.object({ title: z.string(), version: z.string() }),
  paths: z.record(
    z.string(),
    z.record(
      z.string(),
      z.object({
        operationId: z.string(),
        summary: z.string(),
        security: z.array(z.record(z.string(), z.array(z.string()))),
        parameters: z.array(z.object({ name: z.string(), in: z.string(), required: z.boolean() })).optional(),
        requestBody: z.object({ required: z.literal(true), content: z.record(z.string(), z.unknown()) }).optional(),
        responses: z.record(
          z.string(),
          z.object({
            description: z.string().min(1),
            content: z.record(z.string(), z.object({ schema: z.unknown() })),
          }),
        ),
      }),
    ),
  ),
  components: z.object({
    schemas: z.record(z.string(), z.unknown()),
    securitySchemes: z.object({ bearer: z.object({ type: z.literal('http'), scheme: z.literal('bearer') }) }),
  }),
});

describe('GET /openapi.json', () => {
  let text: string;
  let document: z.infer<typeof documentSchema>;

  beforeAll(async () => {
    ({ text } = await call('GET', '/openapi.json', { token: null }));
    document = documentSchema.parse(JSON.parse(text));
  });

  it('names every route of the contract and no other', () => {
    const named = Object.entries(document.paths).flatMap(([path, operations]) =>
      Object.keys(operations).map((method) => `${method} ${path}`),
    );
    expect(named.sort()).toEqual(routes.map(([method, template]) => `${method} ${template}`).sort());
  });

  it.each(routes)('says of %s %s who may call it, what goes in and what comes out', (method, template) => {
    const operation = document.paths[template]?.[method];
    const isOpen = openTemplates.has(template);
    expect(operation?.security).toEqual(isOpen ? [] : [{ bearer: [expect.any(String)] }]);
    expect('401' in (operation?.responses ?? {})).toBe(!isOpen || template.endsWith('/complete'));
    expect(Object.keys(operation?.requestBody?.content ?? {})).toEqual(method === 'get' ? [] : ['application/json']);
    const inPath = operation?.parameters?.filter((parameter) => parameter.in === 'path').map(({ name }) => name);
    expect(inPath ?? []).toEqual([...template.matchAll(/\{(\w+)\}/g)].map(([, name]) => name));
    const errorType = template.startsWith('/agents') ? 'text/plain; charset=utf-8' : 'application/problem+json';
    for (const [status, { content }] of Object.entries(operation?.responses ?? {}))
      if (Number(status) >= 400 && template !== '/readyz') expect(Object.keys(content)).toEqual([errorType]);
  });

  it('gives every operation its own id', () => {
    const ids = Object.values(document.paths).flatMap((operations) =>
      Object.values(operations).map(({ operationId }) => operationId),
    );
    expect(new Set(ids).size).toBe(ids.length);
  });

  it('refers to nothing that is not in it, and holds nothing that nothing refers to', () => {
    const references = new Set([...text.matchAll(/"#\/components\/schemas\/(\w+)"/g)].map(([, name]) => name));
    expect([...references].sort()).toEqual(Object.keys(document.components.schemas).sort());
  });
});

/** Sends a body in chunks, without a length; the status that comes back. */
function sendChunked(url: string, method: string, chunks: readonly string[]): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method, headers: { 'transfer-encoding': 'chunked' } }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    // The server may close while we still write: only an answer counts.
    outgoing.on('error', reject);
    for (const chunk of chunks) outgoing.write(chunk);
    outgoing.end();
  });
}
