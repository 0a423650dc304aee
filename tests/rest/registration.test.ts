import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { type Call, plainError } from './rest-caller.ts';
import { begin, challengeSchema, completeBody, initBody, register, registrant } from './rest-registrant.ts';
import { type RestUnderTest, startRest } from './rest-under-test.ts';

let rest: RestUnderTest;
let call: Call;

beforeAll(async () => {
  rest = await startRest();
  call = rest.call;
});
afterAll(() => rest.close());

const init = (body: unknown, headers: Record<string, string> = {}) =>
  call('POST', '/agents/register/init', { body, headers, token: null });
const complete = (body: unknown) => call('POST', '/agents/register/complete', { body, token: null });

const goodKey = Buffer.from(nativeCrypto.generateSigningKey().publicKey).toString('base64');

describe('POST /agents/register/init', () => {
  it('answers a challenge: a UUID, 32 random bytes and the time in seconds', async () => {
    const answer = await init(initBody(registrant('init-1')));
    expect(answer).toMatchObject({ status: 200, contentType: 'application/json' });
    const challenge = challengeSchema.parse(answer.json);
    expect(Buffer.from(challenge.nonce, 'base64')).toHaveLength(32);
    expect(Buffer.from(challenge.nonce, 'base64').toString('base64')).toBe(challenge.nonce);
    expect(challenge.server_time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    expect(Math.abs(Date.parse(challenge.server_time) - Date.now())).toBeLessThan(5_000);
  });

  it('gives every challenge its own id and nonce', async () => {
    const host = registrant('init-2');
    const [one, other] = [await begin(call, host), await begin(call, host)];
    expect(one.registration_id).not.toBe(other.registration_id);
    expect(one.nonce).not.toBe(other.nonce);
  });

  it.each([
    ['is missing', undefined],
    ['is null', null],
    ['is a number', 7],
    ['is empty', ''],
    ['is not base64', '*'.repeat(44)],
    ['is base64 of the URL alphabet', Buffer.alloc(32, 0xff).toString('base64url')],
    ['has 31 bytes', Buffer.alloc(31, 1).toString('base64')],
    ['has 33 bytes', Buffer.alloc(33, 1).toString('base64')],
    ['is an alias of the same bytes', goodKey.replace(/.=$/, (end) => `${end[0] === 'A' ? 'B' : 'D'}=`)],
    ['is a point of small order', Buffer.alloc(32).toString('base64')],
    ['is not on the curve', Buffer.from(`02${'00'.repeat(31)}`, 'hex').toString('base64')],
  ])('answers `bad pubkey` where the key %s', async (_case, agent_pubkey) => {
    expect(await init({ host_id: 'init-3', agent_pubkey })).toMatchObject(plainError(400, 'bad pubkey'));
  });

  it('tells of a bad key before anything else that does not fit', async () => {
    expect(await init({ host_id: 7, org_id: 7, agent_pubkey: 'x' })).toMatchObject(plainError(400, 'bad pubkey'));
    expect(await init({})).toMatchObject(plainError(400, 'bad pubkey'));
  });

  it.each(['', '{', 'null', '[]', '"text"', Buffer.from('{"host_id":"\xff"}', 'latin1')])(
    'answers 400 and a text to a body that is no JSON object: %j',
    async (body) => {
      const answer = await init(body);
      expect(answer).toMatchObject({ status: 400, contentType: 'text/plain; charset=utf-8' });
      expect(answer.text).not.toBe('');
    },
  );

  it.each([
    ['host_id', 'missing', undefined],
    ['host_id', 'empty', ''],
    ['host_id', '256 characters long', 'h'.repeat(256)],
    ['host_id', 'a number', 7],
    ['host_id', 'with a control character', 'a\nb'],
    ['org_id', '256 characters long', 'o'.repeat(256)],
    ['org_id', 'with a control character', 'o\u0007'],
    ['machine_id_hash', '256 characters long', 'm'.repeat(256)],
    ['agent_version', 'an object', {}],
  ])('refuses %s that is %s, and names it', async (field, _case, value) => {
    const answer = await init({ ...initBody(registrant('init-4')), [field]: value });
    expect(answer).toMatchObject({ status: 400, contentType: 'text/plain; charset=utf-8' });
    expect(answer.text).toContain(field);
  });

  it.each([
    ['NUL in host_id', '"host_id":"a\\u0000b"'],
    ['half of a surrogate pair in host_id', '"host_id":"a\\ud800b"'],
    ['NUL deep in platform', '"host_id":"a","platform":{"a":[{"b":"\\u0000"}]}'],
    ['NUL in a key of capabilities', '"host_id":"a","capabilities":{"\\u0000":1}'],
    ['half of a surrogate pair in network', '"host_id":"a","network":["\\udc00"]'],
    ['__proto__ in platform', '"host_id":"a","platform":{"__proto__":{"a":1}}'],
  ])('refuses %s', async (_case, fields) => {
    expect(await init(`{"agent_pubkey":"${goodKey}",${fields}}`)).toMatchObject({ status: 400 });
  });

  it('takes names of 255 characters, wide ones too', async () => {
    for (const hostId of ['h'.repeat(255), '😀'.repeat(255), 'a.b.c', 'Gerät 7'])
      expect(await init(initBody(registrant(hostId)))).toMatchObject({ status: 200 });
  });

  it('takes values that nest 32 deep, and none deeper', async () => {
    const nested = (depth: number) => JSON.parse('['.repeat(depth) + ']'.repeat(depth));
    expect(await init(initBody(registrant('init-5', { platform: nested(32) })))).toMatchObject({ status: 200 });
    expect(await init(initBody(registrant('init-5', { platform: nested(33) })))).toMatchObject({ status: 400 });
  });

  it('takes null and the empty text for what is left out', async () => {
    const nothing = { org_id: '', machine_id_hash: null, agent_version: '', capabilities: null, platform: null };
    expect(await init(initBody(registrant('init-6', nothing)))).toMatchObject({ status: 200 });
  });

  it.each(['application/json', 'text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data', 'nonsense'])(
    'reads JSON whatever the content type says: %s',
    async (contentType) => {
      const answer = await init(initBody(registrant('init-7')), { 'content-type': contentType });
      expect(answer).toMatchObject({ status: 200 });
    },
  );
});

describe('POST /agents/register/complete', () => {
  it('answers the uid and a bootstrap token of more than 20 characters, which agents print', async () => {
    const { agent_uid, bootstrap_token } = await register(call, registrant('complete-1'));
    expect(agent_uid).toMatch(/^[0-9a-f-]{36}$/);
    expect(bootstrap_token.length).toBeGreaterThan(20);
  });

  it('gives the same uid to the same organisation, host and key, and one agent', async () => {
    const host = registrant('complete-2');
    const [first, again] = [await register(call, host), await register(call, host)];
    expect(again.agent_uid).toBe(first.agent_uid);
    expect((await call('GET', '/agents?host_id=complete-2')).json).toMatchObject({ total: 1 });
  });

  it('gives the same host another uid in another organisation', async () => {
    const here = await register(call, registrant('complete-3', { org_id: 'org-a' }));
    const there = await register(call, registrant('complete-3', { org_id: 'org-b' }));
    expect(here.agent_uid).not.toBe(there.agent_uid);
  });

  it.each([
    ['unknown', randomUUID()],
    ['no UUID', 'x'],
    ['missing', undefined],
    ['null', null],
    ['empty', ''],
  ])(
    'answers `unknown registration` where the registration is %s, whatever the rest',
    async (_case, registration_id) => {
      expect(await complete({ registration_id, host_id: 'h', signature: '*' })).toMatchObject(
        plainError(404, 'unknown registration'),
      );
    },
  );

  it('answers `unknown registration` to one that was used', async () => {
    const host = registrant('complete-4');
    const body = completeBody(host, await begin(call, host));
    expect(await complete(body)).toMatchObject({ status: 200 });
    expect(await complete(body)).toMatchObject(plainError(404, 'unknown registration'));
  });

  it('answers `bad signature` to one that is not base64, and the registration stays usable', async () => {
    const host = registrant('complete-5');
    const body = completeBody(host, await begin(call, host));
    expect(await complete({ ...body, signature: '*not base64*' })).toMatchObject(plainError(400, 'bad signature'));
    expect(await complete(body)).toMatchObject({ status: 200 });
  });

  it.each([
    ['of another key', Buffer.alloc(64, 7).toString('base64')],
    ['of 63 bytes', Buffer.alloc(63, 7).toString('base64')],
    ['missing', undefined],
  ])('answers `signature verify failed` to one %s, and the registration stays usable', async (_case, signature) => {
    const host = registrant(`complete-6-${_case}`);
    const body = completeBody(host, await begin(call, host));
    expect(await complete({ ...body, signature })).toMatchObject(plainError(401, 'signature verify failed'));
    expect(await complete(body)).toMatchObject({ status: 200 });
  });

  it('answers `signature verify failed` to another host than at init, even one that is signed', async () => {
    const host = registrant('complete-7');
    const challenge = await begin(call, host);
    const other = { ...completeBody(host, challenge, 'other'), host_id: 'other' };
    expect(await complete(other)).toMatchObject(plainError(401, 'signature verify failed'));
    const missing = { ...completeBody(host, challenge), host_id: undefined };
    expect(await complete(missing)).toMatchObject(plainError(401, 'signature verify failed'));
    expect(await complete(completeBody(host, challenge))).toMatchObject({ status: 200 });
  });

  it.each(['', '{', '[]', { registration_id: 7 }])('answers 400 and a text to a body of no use: %j', async (body) => {
    expect(await complete(body)).toMatchObject({ status: 400, contentType: 'text/plain; charset=utf-8' });
  });
});
