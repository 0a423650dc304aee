import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type BareServer, startBareServer } from './bare-server.ts';
import { askRaw } from './raw-connection.ts';

let bare: BareServer;
beforeAll(async () => {
  bare = await startBareServer({});
});
afterAll(() => bare.server.close(0));

/** What hides behind the first request, for whoever reads that one otherwise. */
const hidden = 'GET /hidden HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n';

function post(...headers: string[]): string {
  return ['POST /first HTTP/1.1', 'host: g', ...headers, '\r\n'].join('\r\n');
}

const chunked = post('transfer-encoding: chunked');

const ambiguous: readonly [what: string, request: string][] = [
  ['a length and chunks', `${post('content-length: 5', 'transfer-encoding: chunked')}0\r\n\r\n`],
  ['chunks and a length', `${post('transfer-encoding: chunked', 'content-length: 5')}0\r\n\r\n`],
  ['two lengths', post('content-length: 0', `content-length: ${hidden.length}`)],
  ['the same length twice', `${post('content-length: 1', 'content-length: 1')}x`],
  ['a list of lengths', `${post('content-length: 1, 1')}x`],
  ['a length with a sign', `${post('content-length: +1')}x`],
  ['a negative length', `${post('content-length: -1')}x`],
  ['a length that is not decimal', `${post('content-length: 0x1')}x`],
  ['a length beyond all numbers', `${post('content-length: 99999999999999999999')}x`],
  ['an empty length', post('content-length: ')],
  ['a blank before the colon', `${post('content-length : 1')}x`],
  ['an encoding that is not the last', `${post('transfer-encoding: chunked, identity')}0\r\n\r\n`],
  ['an encoding that nobody knows', `${post('transfer-encoding: xchunked')}0\r\n\r\n`],
  ['two encodings', `${post('transfer-encoding: chunked', 'transfer-encoding: identity')}0\r\n\r\n`],
  ['chunks in chunks', `${post('transfer-encoding: chunked, chunked')}0\r\n\r\n`],
  ['an encoding behind a control character', `${post('transfer-encoding:\x0bchunked')}0\r\n\r\n`],
  ['chunks in HTTP/1.0', `${chunked.replace('1.1', '1.0')}0\r\n\r\n`],
  ['a folded header', `${post('content-length: 1', 'x: a', ' b')}x`],
  ['a folded encoding', `${post('transfer-encoding:', ' chunked')}0\r\n\r\n`],
  ['a blank before the first header', 'GET /first HTTP/1.1\r\n host: g\r\n\r\n'],
  ['lines that end with LF', 'GET /first HTTP/1.1\nhost: g\n\n'],
  ['one line that ends with LF', 'GET /first HTTP/1.1\r\nhost: g\nx: y\r\n\r\n'],
  ['a line that ends with CR', 'GET /first HTTP/1.1\r\nhost: g\r\nx: a\rb: c\r\n\r\n'],
  ['headers that end with LF', 'GET /first HTTP/1.1\r\nhost: g\r\n\n'],
  ['NUL in a value', post('x: a\0b')],
  ['NUL in a name', post('x\0: a')],
  ['a header without a colon', post('x')],
  ['a chunk whose size is not hexadecimal', `${chunked}0x1\r\nx\r\n0\r\n\r\n`],
  ['a chunk whose size is beyond all numbers', `${chunked}fffffffffffffffff\r\nx`],
  ['a chunk whose size has a blank behind it', `${chunked}1 \r\nx\r\n0\r\n\r\n`],
  ['a chunk that is longer than it says', `${chunked}1\r\nxyz\r\n0\r\n\r\n`],
  ['chunks that end with LF', `${chunked}1\nx\n0\n\n`],
  ['one chunk that ends with LF', `${chunked}1\r\nx\n0\r\n\r\n`],
  ['a chunk with LF in its extension', `${chunked}1;a\nb\r\nx\r\n0\r\n\r\n`],
  ['a chunk with CR in its extension', `${chunked}1;a\rb\r\nx\r\n0\r\n\r\n`],
  ['no host', 'GET /first HTTP/1.1\r\n\r\n'],
  ['two hosts', 'GET /first HTTP/1.1\r\nhost: g\r\nHost: h\r\n\r\n'],
  ['the same host twice', 'GET /first HTTP/1.1\r\nhost: g\r\nHOST: g\r\n\r\n'],
  ['HTTP/0.9', 'GET /first\r\n\r\n'],
  ['HTTP/1.2', 'GET /first HTTP/1.2\r\nhost: g\r\n\r\n'],
  ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
];

describe('a request that could be read in two ways', () => {
  it.each(ambiguous)('is refused, and nothing behind it is answered: %s', async (_what, request) => {
    const answers = await askRaw(bare.url, Buffer.from(request + hidden, 'latin1'));
    // What stands behind a refused request may be refused too, as the nonsense that it then is.
    expect([...new Set(answers.map(({ status }) => status))]).toEqual([400]);
    expect(answers[0]?.headers.get('connection')).toBe('close');
  });
});

describe('a request that has one meaning', () => {
  it.each([
    ['a length', `${post('content-length: 1')}x`, '/first got x'],
    ['chunks', `${chunked}1\r\nx\r\n2\r\nyz\r\n0\r\n\r\n`, '/first got xyz'],
    ['chunks with extensions and trailers', `${chunked}1;a=b;c="d"\r\nx\r\n0;e\r\nt: u\r\n\r\n`, '/first got x'],
    ['chunks behind a tab', `${post('transfer-encoding:\tchunked')}1\r\nx\r\n0\r\n\r\n`, '/first got x'],
    ['no host in HTTP/1.0', 'GET http://g/first HTTP/1.0\r\nconnection: keep-alive\r\n\r\n', '/first got '],
  ])('is answered, and so is the one behind it: %s', async (_what, request, body) => {
    const answers = await askRaw(bare.url, request + hidden);
    expect(answers.map((answer) => [answer.status, answer.body])).toEqual([
      [200, body],
      [200, '/hidden got '],
    ]);
  });

  it('never lets its body be one, read or not', async () => {
    const unread = await startBareServer({ rest: async (request) => new Response(new URL(request.url).pathname) });
    const answers = await askRaw(
      unread.url,
      post(`content-length: ${hidden.length}`) + hidden + hidden.replace('hidden', 'next'),
    );
    for (const { body } of answers) expect(body).not.toBe('/hidden');
    await unread.server.close(0);
  });

  it('never lets the body of a refused upgrade be one', async () => {
    const upgrade = post('connection: upgrade', 'upgrade: websocket', `content-length: ${hidden.length}`);
    expect((await askRaw(bare.url, upgrade + hidden)).map(({ status }) => status)).toEqual([404]);
  });
});

describe('the size of a request', () => {
  const manyHeaders = (count: number) =>
    `GET / HTTP/1.1\r\nhost: g\r\nconnection: close\r\n${'a:\r\n'.repeat(count - 2)}\r\n`;

  it('may be 200 headers, and not one more', async () => {
    expect((await askRaw(bare.url, manyHeaders(200))).map(({ status }) => status)).toEqual([200]);
    for (const count of [201, 2_001, 10_000])
      expect((await askRaw(bare.url, manyHeaders(count))).map(({ status }) => status)).toEqual([431]);
  });

  it('may be no more headers where it is an upgrade either', async () => {
    const upgrade = manyHeaders(201).replace('connection: close', 'connection: upgrade\r\nupgrade: websocket');
    expect((await askRaw(bare.url, upgrade)).map(({ status }) => status)).toEqual([431]);
  });

  it.each([
    ['a URL', (bytes: number) => `GET /${'x'.repeat(bytes)} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n\r\n`],
    [
      'a header',
      (bytes: number) => `GET / HTTP/1.1\r\nhost: g\r\nconnection: close\r\nx: ${'x'.repeat(bytes)}\r\n\r\n`,
    ],
    [
      'the name of a header',
      (bytes: number) => `GET / HTTP/1.1\r\nhost: g\r\nconnection: close\r\n${'x'.repeat(bytes)}:\r\n\r\n`,
    ],
  ])('is bounded: %s', async (_what, request) => {
    expect((await askRaw(bare.url, request(15_000))).map(({ status }) => status)).toEqual([200]);
    expect((await askRaw(bare.url, request(17_000))).map(({ status }) => status)).toEqual([431]);
  });

  it('is bounded in the extensions of its chunks', async () => {
    const request = `${chunked}1;${'a'.repeat(20_000)}\r\nx\r\n0\r\n\r\n`;
    expect((await askRaw(bare.url, request)).map(({ status }) => status)).toEqual([413]);
  });
});
