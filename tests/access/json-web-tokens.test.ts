import { createHmac } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { exportJWK, SignJWT } from 'jose';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createAuthenticate } from '../../src/access/authenticate.ts';
import { createTokens, type TokenIssuer } from '../../src/access/json-web-tokens.ts';
import { systemClock } from '../../src/clock.ts';
import { audience, issuer, issuerKey, type KeyServer, signToken, startKeyServer } from './tokens.ts';

const algorithms = ['RS256', 'PS256', 'ES256', 'EdDSA'];
const directory = mkdtempSync(join(tmpdir(), 'aegis-jwt-'));
afterAll(() => rmSync(directory, { recursive: true }));

const startMs = Date.parse('2026-11-24T12:00:00Z');
let nowMs = startMs;
beforeEach(() => {
  nowMs = startMs;
});
const clock = { ...systemClock, now: () => nowMs };
const logged: unknown[] = [];

let withdrawals = 0;

function tokensOf(keys: TokenIssuer['keys']) {
  return createTokens(
    { issuer, audience, algorithms, keys },
    { clock, wall: clock, logError: (error) => logged.push(error), onKeyWithdrawn: () => withdrawals++ },
  );
}

function authenticating(keys: TokenIssuer['keys'], adminToken: string | null = null) {
  const { read } = tokensOf(keys);
  const authenticate = createAuthenticate(adminToken, [read]);
  return async (token: string) => authenticate(`Bearer ${token}`);
}

function fileOf(name: string, text: string): string {
  const path = join(directory, name);
  writeFileSync(path, text);
  return path;
}

const seconds = (offset: number) => Math.floor(startMs / 1_000) + offset;
const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

describe('a token that one public key signs', () => {
  const key = issuerKey('one', 'RS256');
  const authenticate = authenticating({ publicKeyPath: fileOf('public.pem', key.pem) });
  const sign = (claims = {}) => signToken(key, claims, startMs);

  it('tells who the consumer is, where, and what it may do', async () => {
    expect(await authenticate(await sign({ scope: 'agents:read messages:send openid' }))).toEqual({
      ...{ id: 'console', kind: 'jwt', label: 'console', orgId: 'acme' },
      permissions: new Set(['agents:read', 'messages:send']),
      expiresAt: new Date(startMs + 60_000),
    });
  });

  it('reaches all organisations where it says so in as many words, and none where it names none', async () => {
    expect(await authenticate(await sign({ all_organisations: true, org_id: undefined }))).toMatchObject({
      orgId: null,
    });
    for (const claims of [
      { org_id: undefined },
      { org_id: undefined, all_organisations: false },
      { org_id: undefined, all_organisations: 'true' },
      { org_id: '' },
      { org_id: ['acme'] },
      { org_id: null },
      { org_id: '*', all_organisations: 1 },
    ])
      expect([claims, await authenticate(await sign(claims))]).toEqual([claims, null]);
  });

  it('permits nothing where it has no scopes', async () => {
    expect(await authenticate(await sign({ scope: undefined }))).toMatchObject({ permissions: new Set() });
    expect(await authenticate(await sign({ scope: ['admin'] }))).toBeNull();
  });

  it.each([
    ['another issuer', { iss: 'https://evil.example' }],
    ['no issuer', { iss: undefined }],
    ['another audience', { aud: 'shop' }],
    ['no audience', { aud: undefined }],
    ['no expiry', { exp: undefined }],
    ['an expiry that is no number', { exp: 'tomorrow' }],
    ['an expiry 61 s ago', { exp: seconds(-61) }],
    ['a beginning in 61 s', { nbf: seconds(61) }],
  ])('is refused with %s', async (_name, claims) => {
    expect(await authenticate(await sign(claims))).toBeNull();
  });

  it.each([
    ['several audiences, ours among them', { aud: ['shop', audience] }],
    ['an expiry 59 s ago', { exp: seconds(-59) }],
    ['a beginning in 59 s', { nbf: seconds(59) }],
  ])('is taken with %s', async (_name, claims) => {
    expect(await authenticate(await sign(claims))).toMatchObject({ id: 'console' });
  });

  it('that comes in the leeway is good to its end', async () => {
    const late = await authenticate(await sign({ exp: seconds(-59) }));
    expect(late?.expiresAt).toEqual(new Date((seconds(-59) + 60) * 1_000));
  });

  it('is refused without a signature, whatever its algorithm is called', async () => {
    const [, payload = ''] = (await sign()).split('.');
    for (const alg of ['none', 'None', 'NONE', '', null])
      expect(await authenticate(`${part({ alg })}.${payload}.`)).toBeNull();
  });

  it('is refused where the public key is its secret', async () => {
    const [, payload = ''] = (await sign()).split('.');
    for (const secret of [key.pem, key.pem.trim()]) {
      const head = `${part({ alg: 'HS256' })}.${payload}`;
      expect(await authenticate(`${head}.${createHmac('sha256', secret).update(head).digest('base64url')}`)).toBeNull();
    }
  });

  it('is refused under another key, and with an algorithm that is not allowed', async () => {
    expect(await authenticate(await signToken(issuerKey('one', 'RS256'), {}, startMs))).toBeNull();
    expect(await authenticate(await signToken(issuerKey('one', 'ES256'), {}, startMs))).toBeNull();
    const wrong = new SignJWT({ iss: issuer, aud: audience, org_id: 'acme', exp: seconds(60) });
    expect(await authenticate(await wrong.setProtectedHeader({ alg: 'RS512' }).sign(key.privateKey))).toBeNull();
  });

  it('is refused with any byte of it changed', async () => {
    const token = await sign();
    await fc.assert(
      fc.asyncProperty(fc.nat(token.length - 2), fc.constantFrom('A', 'b', '7', '_'), async (at, char) => {
        fc.pre(token[at] !== char && token[at] !== '.');
        const changed = `${token.slice(0, at)}${char}${token.slice(at + 1)}`;
        const sameBytes = token
          .split('.')
          .every((piece, index) =>
            Buffer.from(piece, 'base64url').equals(Buffer.from(changed.split('.')[index] ?? '', 'base64url')),
          );
        fc.pre(!sameBytes);
        expect(await authenticate(changed)).toBeNull();
      }),
      { numRuns: 60 },
    );
  });

  it('of more than 8 KiB is refused unread', async () => {
    expect(await authenticate(await sign({ padding: 'x'.repeat(5_000) }))).toMatchObject({ id: 'console' });
    expect(await authenticate(await sign({ padding: 'x'.repeat(8_192) }))).toBeNull();
  });

  it('is taken for nothing where it is no token at all', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string(), async (text) => {
        expect(await authenticate(text)).toBeNull();
      }),
      { numRuns: 100 },
    );
  });

  it('is not remembered beyond its end', async () => {
    const token = await sign({ exp: seconds(2) });
    expect(await authenticate(token)).toMatchObject({ id: 'console' });
    nowMs = startMs + 2_000;
    expect((await authenticate(token))?.expiresAt).toEqual(new Date((seconds(2) + 60) * 1_000));
    nowMs = startMs + 62_000;
    expect(await authenticate(token)).toBeNull();
  });

  it('goes before nothing: ADMIN_TOKEN is looked at first, whatever it looks like', async () => {
    const token = await sign();
    const both = authenticating({ publicKeyPath: fileOf('public.pem', key.pem) }, token);
    expect(await both(token)).toMatchObject({ kind: 'admin-token' });
  });
});

describe('the file of the key', () => {
  it.each([
    ['a private key', issuerKey('x').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()],
    ['nothing of the sort', 'hello'],
    ['a broken key', '-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n'],
  ])('must not be %s', (_name, text) => {
    const path = fileOf('wrong.pem', text);
    expect(() => authenticating({ publicKeyPath: path })).toThrow(`${path} holds no PEM public key`);
  });

  it('is read again when that is asked for, and the key from before is good for nothing then', async () => {
    const [before, after] = [issuerKey('before'), issuerKey('after')];
    const path = fileOf('exchanged.pem', before.pem);
    const { read, reload } = tokensOf({ publicKeyPath: path });
    const [shown, hurried, fresh] = await Promise.all(
      [before, before, after].map((key, number) => signToken(key, { sub: `s${number}` }, startMs)),
    );
    expect(await read(shown ?? '')).toMatchObject({ orgId: 'acme' });
    withdrawals = 0;
    fileOf('exchanged.pem', after.pem);
    const underWay = read(hurried ?? '');
    await reload();
    expect(await underWay).toBeNull();
    expect(await read(shown ?? '')).toBeNull();
    expect(await read(fresh ?? '')).toMatchObject({ orgId: 'acme' });
    expect(withdrawals).toBe(1);
    await reload();
    expect(withdrawals).toBe(1);
  });

  it('that is away or broken when it is read again leaves the key from before in use', async () => {
    const key = issuerKey('kept');
    const path = fileOf('kept.pem', key.pem);
    const { read, reload } = tokensOf({ publicKeyPath: path });
    logged.length = withdrawals = 0;
    fileOf('kept.pem', 'hello');
    await reload();
    rmSync(path);
    await reload();
    expect(await read(await signToken(key, {}, startMs))).toMatchObject({ orgId: 'acme' });
    expect(logged).toHaveLength(2);
    expect(withdrawals).toBe(0);
  });
});

describe('keys that the issuer publishes', () => {
  const [first, second, foreign] = [issuerKey('first'), issuerKey('second', 'ES256'), issuerKey('foreign')];
  let server: KeyServer;
  let authenticate: ReturnType<typeof authenticating>;
  beforeEach(async () => {
    server = await startKeyServer([first]);
    authenticate = authenticating({ jwksUrl: server.url });
  });
  afterEach(() => server.stop());

  /** A token that was not shown before, so that nothing is remembered of it. */
  let made = 0;
  const sign = (key = first) => signToken(key, { sub: `s${made++}`, exp: seconds(3 * 86_400) }, startMs);

  it('are asked for once', async () => {
    await Promise.all([authenticate(await sign()), authenticate(await sign())]);
    expect(await authenticate(await sign())).toMatchObject({ orgId: 'acme' });
    expect(server.asked).toBe(1);
  });

  it('are asked for again where a token names one that is not among them', async () => {
    await authenticate(await sign());
    server.keys = [first, second];
    nowMs += 30_000;
    expect(await authenticate(await sign(second))).toMatchObject({ orgId: 'acme' });
    expect(server.asked).toBe(2);
  });

  it('are not asked for more often than every 30 s, whatever tokens name', async () => {
    await authenticate(await sign());
    for (let guess = 0; guess < 20; guess++) expect(await authenticate(await sign(issuerKey(`k${guess}`)))).toBeNull();
    expect(server.asked).toBe(1);
    nowMs += 30_000;
    for (let guess = 0; guess < 20; guess++) expect(await authenticate(await sign(issuerKey(`k${guess}`)))).toBeNull();
    expect(server.asked).toBe(2);
  });

  it('are refused where they name or bring a key of their own', async () => {
    const elsewhere = await startKeyServer([foreign]);
    try {
      const jwk = await exportJWK(foreign.publicKey);
      for (const header of [
        { jku: elsewhere.url },
        { jwk },
        { x5u: elsewhere.url },
        { x5c: ['AAAA'] },
        { jku: elsewhere.url, jwk },
      ]) {
        const claims = { iss: issuer, aud: audience, sub: 'thief', org_id: 'acme', scope: 'admin', exp: seconds(60) };
        const token = await new SignJWT(claims)
          .setProtectedHeader({ alg: foreign.alg, kid: foreign.kid, ...header })
          .sign(foreign.privateKey);
        expect(await authenticate(token)).toBeNull();
      }
      expect(elsewhere.asked).toBe(0);
    } finally {
      await elsewhere.stop();
    }
  });

  it('of another issuer let nobody in, nor does one of ours under its name', async () => {
    expect(await authenticate(await sign(foreign))).toBeNull();
    expect(await authenticate(await sign({ ...foreign, kid: 'first' }))).toBeNull();
  });

  it('are read anew after ten minutes, and one that was withdrawn is good for nothing', async () => {
    await authenticate(await sign());
    server.keys = [second];
    nowMs += 10 * 60_000 + 1;
    await authenticate(await sign());
    await expect.poll(async () => authenticate(await sign())).toBeNull();
    expect(await authenticate(await sign(second))).toMatchObject({ orgId: 'acme' });
  });

  it('are read at once when that is asked for, however lately they were', async () => {
    const { read, reload } = tokensOf({ jwksUrl: server.url });
    const token = await sign();
    expect(await read(token)).toMatchObject({ orgId: 'acme' });
    withdrawals = 0;
    server.keys = [first, second];
    await reload();
    expect(withdrawals).toBe(0);
    expect(await read(await sign(second))).toMatchObject({ orgId: 'acme' });
    server.keys = [second];
    await reload();
    expect(withdrawals).toBe(1);
    expect(await read(token)).toBeNull();
    server.fault = { status: 500, body: '' };
    await reload();
    expect(await read(await sign(second))).toMatchObject({ orgId: 'acme' });
    expect(server.asked).toBe(4);
  });

  it.each([
    ['fails', { status: 500, body: 'no' }],
    ['sends us elsewhere', { status: 302, body: '' }],
    ['answers what is no set of keys', { status: 200, body: '{"keys": 1}' }],
    ['answers what is no JSON', { status: 200, body: '<html>' }],
    ['answers too much', { status: 200, body: ' '.repeat(300_000) }],
  ])('serve for a day where the issuer %s', async (_name, fault) => {
    await authenticate(await sign());
    server.fault = fault;
    nowMs += 24 * 3_600_000 - 1_000;
    expect(await authenticate(await sign())).toMatchObject({ orgId: 'acme' });
    nowMs += 2_000;
    await expect(authenticate(await sign())).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });

  it('that cannot be had at the start are no fault of the token; they are asked for again later', async () => {
    server.fault = { status: 503, body: '' };
    const token = await sign();
    await expect(authenticate(token)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    server.fault = null;
    await expect(authenticate(token)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    nowMs += 30_000;
    expect(await authenticate(token)).toMatchObject({ orgId: 'acme' });
    expect(server.asked).toBe(2);
  });
});
