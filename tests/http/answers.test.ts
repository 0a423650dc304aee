import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestGateway, type TestGateway } from '../support/gateway.ts';
import { askRaw } from './raw-connection.ts';

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await startTestGateway();
});
afterAll(() => gateway.stop());

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

function raw(line: string, ...headers: string[]): string {
  return [line, 'host: gateway', ...headers, '\r\n'].join('\r\n');
}

const websocket = [
  'connection: upgrade',
  'upgrade: websocket',
  'sec-websocket-version: 13',
  'sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==',
];
const unsound = websocket.slice(0, 3);

/** Every way in which the gateway answers HTTP. */
const answers: readonly [what: string, status: number, code: string | null, request: () => string][] = [
  ['a page that is there', 200, null, () => raw('GET /healthz HTTP/1.1', 'connection: close')],
  ['a HEAD', 200, null, () => raw('HEAD /healthz HTTP/1.1', 'connection: close')],
  ['what needs credentials', 401, null, () => raw('GET /agents HTTP/1.1', 'connection: close')],
  ['an unknown path', 404, 'NOT_FOUND', () => raw('GET /nothing HTTP/1.1', 'connection: close')],
  ['another method', 405, 'METHOD_NOT_ALLOWED', () => raw('DELETE /healthz HTTP/1.1', 'connection: close')],
  ['an OPTIONS', 204, null, () => raw('OPTIONS /healthz HTTP/1.1', 'connection: close')],
  [
    'a body that is too large',
    413,
    null,
    () =>
      raw('POST /agents/register/init HTTP/1.1', 'connection: close', 'content-length: 1048577') +
      ' '.repeat(1_048_577),
  ],
  ['GraphQL without credentials', 401, 'UNAUTHENTICATED', () => raw('POST /graphql HTTP/1.1', 'connection: close')],
  [
    'GraphQL of another type',
    415,
    'BAD_USER_INPUT',
    () => raw('POST /graphql HTTP/1.1', 'connection: close', `authorization: Bearer ${gateway.token}`),
  ],
  [
    'GraphQL that answers',
    200,
    null,
    () =>
      raw('GET /graphql?query={__typename} HTTP/1.1', 'connection: close', `authorization: Bearer ${gateway.token}`),
  ],
  ['a URL that is none', 400, null, () => raw('GET http://[ HTTP/1.1', 'connection: close')],
  ['no host', 400, 'REQUEST_MALFORMED', () => 'GET /healthz HTTP/1.1\r\n\r\n'],
  ['an expectation', 200, null, () => raw('GET /healthz HTTP/1.1', 'connection: close', 'expect: the-best')],
  ['a tunnel', 405, 'METHOD_NOT_ALLOWED', () => raw('CONNECT other:80 HTTP/1.1')],
  ['what is no HTTP', 400, 'REQUEST_MALFORMED', () => 'nonsense\r\n\r\n'],
  ['headers without end', 431, 'HEADERS_TOO_LARGE', () => raw('GET / HTTP/1.1', `x: ${'x'.repeat(17_000)}`)],
  ['a URL without end', 431, 'HEADERS_TOO_LARGE', () => raw(`GET /${'x'.repeat(17_000)} HTTP/1.1`)],
  ['an upgrade elsewhere', 404, 'NOT_FOUND', () => raw('GET /healthz HTTP/1.1', ...websocket)],
  [
    'an upgrade to something else',
    404,
    'NOT_FOUND',
    () => raw('GET / HTTP/1.1', 'connection: upgrade', 'upgrade: h2c'),
  ],
  [
    "a page's upgrade for agents",
    403,
    'ORIGIN_REFUSED',
    () => raw('GET /ws/agent HTTP/1.1', ...websocket, 'origin: http://gateway'),
  ],
  [
    "another page's upgrade",
    403,
    'ORIGIN_REFUSED',
    () => raw('GET /graphql HTTP/1.1', ...websocket, 'origin: http://other'),
  ],
  [
    'an unknown agent protocol',
    400,
    'PROTOCOL_UNSUPPORTED',
    () => raw('GET /ws/agent HTTP/1.1', ...websocket, 'sec-websocket-protocol: x'),
  ],
  ['a handshake without a key, for agents', 400, 'REQUEST_MALFORMED', () => raw('GET /ws/agent HTTP/1.1', ...unsound)],
  ['a handshake without a key', 400, 'REQUEST_MALFORMED', () => raw('GET /graphql HTTP/1.1', ...unsound)],
];

describe('every answer', () => {
  it.each(answers)('has the headers that protect whoever reads it: %s', async (_what, status, code, text) => {
    const [answer, ...more] = await askRaw(gateway.url, text());
    expect(answer?.status).toBe(status);
    expect(more).toEqual([]);
    expect(Object.fromEntries(answer?.headers ?? [])).toMatchObject({
      'cache-control': 'no-store',
      'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
      'referrer-policy': 'no-referrer',
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
    });
    // Over plain text the header says nothing (RFC 6797, section 7.2).
    expect(answer?.headers.get('strict-transport-security')).toBeNull();
    for (const name of ['server', 'x-powered-by', 'access-control-allow-origin'])
      expect(answer?.headers.get(name)).toBeNull();
    if (code !== null) expect(answer?.body).toContain(`"${code}"`);
  });

  it('has no part of what was not understood', async () => {
    const [answer] = await askRaw(gateway.url, 'GET / HTTP/1.1\r\nhost: gateway\r\nbad header hunter2\r\n\r\n');
    expect(JSON.parse(answer?.body ?? '')).toEqual({
      code: 'REQUEST_MALFORMED',
      detail: 'The request is not sound HTTP',
      status: 400,
    });
  });
});

describe('GraphiQL', () => {
  it('may run its own scripts, by their hashes, and no others', async () => {
    const page = await gateway.fetch('/graphql', { headers: { accept: 'text/html' }, authorization: null });
    const policy = page.headers.get('content-security-policy') ?? '';
    expect(policy).toMatch(/^default-src 'none'; script-src 'sha256-[^']+'; /);
    expect(policy).not.toMatch(/script-src[^;]*unsafe/);
    expect(policy).toContain("frame-ancestors 'none'");
    expect(page.headers.get('x-content-type-options')).toBe('nosniff');
  });
});

describe('the id of a request', () => {
  const idOf = async (path: string, id?: string) => {
    const headers = id === undefined ? {} : { 'x-request-id': id };
    return (await gateway.fetch(path, { headers })).headers.get('x-request-id');
  };

  it.each(['/healthz', '/nothing', '/agents', '/graphql?query={__typename}'])(
    "is the caller's own on %s",
    async (path) => {
      expect(await idOf(path, 'caller-1:a/b+c=@.d_e')).toBe('caller-1:a/b+c=@.d_e');
      expect(await idOf(path, 'x'.repeat(128))).toBe('x'.repeat(128));
    },
  );

  it('is one of ours where there is none, another one each time', async () => {
    const [one, other] = [await idOf('/healthz'), await idOf('/healthz')];
    expect(one).toMatch(uuid);
    expect(other).toMatch(uuid);
    expect(one).not.toBe(other);
  });

  it.each([
    ['too long', 'x'.repeat(129)],
    ['empty', ''],
    ['of two words', 'one two'],
    ['markup', '<b>'],
    ['quoted', '"id"'],
    ['not ASCII', 'ü'],
  ])('is one of ours where the caller’s is %s', async (_what, id) => {
    expect(await idOf('/healthz', id)).toMatch(uuid);
  });

  it('is told when an upgrade is refused', async () => {
    const [answer] = await askRaw(gateway.url, raw('GET / HTTP/1.1', ...websocket, 'x-request-id: caller-1'));
    expect(answer?.headers.get('x-request-id')).toBe('caller-1');
  });

  it('never splits an answer', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary', maxLength: 40 }), async (id) => {
        const bytes = Buffer.from(
          `GET /healthz HTTP/1.1\r\nhost: g\r\nconnection: close\r\nx-request-id: ${id}\r\n\r\n`,
        );
        const given = await askRaw(gateway.url, bytes);
        // A text with a line break of its own makes other headers, or a second request that is nonsense.
        for (const { status, headers } of given) {
          expect([200, 400]).toContain(status);
          expect(headers.get('x-request-id') ?? 'none').toMatch(/^[\w.:+/=@-]{1,128}$/);
        }
      }),
      { numRuns: 50 },
    );
  });
});
