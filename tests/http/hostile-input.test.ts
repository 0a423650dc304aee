import { readFileSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import {
  buildSchema,
  type GraphQLField,
  type GraphQLInputType,
  getNamedType,
  isEnumType,
  isInputObjectType,
  isLeafType,
  isListType,
  isNonNullType,
} from 'graphql';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import { startTestGateway, type TestGateway } from '../support/gateway.ts';

let gateway: TestGateway;
beforeAll(async () => {
  gateway = await startTestGateway({ env: { AGENT_ENROLLMENT: 'approval' } });
});
afterAll(() => gateway.stop());

const json = { 'content-type': 'application/json' };
const post = (path: string, body: unknown, authorization?: null) =>
  gateway.fetch(path, {
    method: 'POST',
    headers: json,
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...(authorization === null ? { authorization } : {}),
  });

const texts = [
  'a\u0000b',
  '\ud800',
  '\r\nx-injected: 1',
  "'; drop table agents; -- %_\\",
  'a'.repeat(300),
  '99999999999999999999999',
  '__proto__',
  '00000000-0000-0000-0000-000000000000',
  Buffer.from('Agent:\u0000').toString('base64url'),
  Buffer.from('event:99999999999999999999').toString('base64url'),
] as const;

describe('a hostile text', () => {
  const schema = buildSchema(readFileSync('schema.graphql', 'utf8'));
  const operations = [
    ...Object.values(schema.getQueryType()?.getFields() ?? {}).map((field) => ['query', field] as const),
    ...Object.values(schema.getMutationType()?.getFields() ?? {}).map((field) => ['mutation', field] as const),
  ];

  /** A value of the type in which this text stands wherever one may. */
  function valueFor(type: GraphQLInputType, text: string): unknown {
    if (isNonNullType(type)) return valueFor(type.ofType, text);
    if (isListType(type)) return [valueFor(type.ofType, text)];
    if (isEnumType(type)) return type.getValues()[0]?.name;
    if (isInputObjectType(type))
      return Object.fromEntries(
        Object.values(type.getFields()).map((field) => [field.name, valueFor(field.type, text)]),
      );
    const others: Readonly<Record<string, unknown>> = {
      Int: 10,
      Float: 1,
      Boolean: true,
      DateTime: '2026-11-24T00:00:00Z',
    };
    return others[type.name] ?? text;
  }

  /** One operation for each argument that can hold a text, beside those that must be there. */
  function operationsOf(kind: string, { name, args, type }: GraphQLField<unknown, unknown>, text: string) {
    const required = args.filter((arg) => isNonNullType(arg.type));
    const wordy = args.filter((arg) => JSON.stringify(valueFor(arg.type, text))?.includes(JSON.stringify(text)));
    const given = wordy.map((arg) => [...required.filter((other) => other !== arg), arg]);
    return given.map((some) => ({
      query: `${kind}${some.length > 0 ? `(${some.map((arg) => `$${arg.name}: ${arg.type}`)})` : ''} {
        ${name}${some.length > 0 ? `(${some.map((arg) => `${arg.name}: $${arg.name}`)})` : ''}${
          isLeafType(getNamedType(type)) ? '' : ' { __typename }'
        } }`,
      variables: Object.fromEntries(some.map((arg) => [arg.name, valueFor(arg.type, text)])),
    }));
  }

  it.each(texts)('never makes the gateway fail, wherever it stands in GraphQL: %j', async (text) => {
    for (const [kind, field] of operations) {
      const answers = await Promise.all(
        operationsOf(kind, field, text).map((operation) => post('/graphql', operation)),
      );
      for (const answer of answers)
        expect([field.name, await answer.text()]).toEqual([
          field.name,
          expect.not.stringContaining('INTERNAL_SERVER_ERROR'),
        ]);
    }
  });

  it.each(texts)('never makes the gateway fail, wherever it stands in REST: %j', async (text) => {
    const id = encodeURIComponent(text.replaceAll(/\p{Surrogate}/gu, '\ufffd'));
    const answers = await Promise.all([
      ...[`/agents/${id}`, `/api/v1/agents/${id}/status`, `/api/v1/messages/${id}`].map((path) => gateway.fetch(path)),
      ...['label', 'hostname', 'host_id', 'ip'].map((name) => gateway.fetch(`/agents?${name}=${id}`)),
      gateway.fetch(`/agents/${id}/note`, { method: 'PUT', body: JSON.stringify({ note: text }) }),
      gateway.fetch(`/agents/${id}/labels`, { method: 'PUT', body: JSON.stringify({ add: [text], remove: [text] }) }),
      post(`/api/v1/agents/${id}/send`, { channel: text, message: text, message_type: text }),
      post('/api/v1/agents/none/send', { channel: 'policies', message: { [text]: text }, message_type: 'event' }),
      ...['org_id', 'host_id', 'agent_pubkey', 'agent_version', 'platform'].map((member) =>
        post('/agents/register/init', { host_id: 'h', agent_pubkey: 'k', [member]: text }, null),
      ),
    ]);
    for (const { status, headers, url } of answers) {
      expect([url, status]).toEqual([url, expect.toSatisfy((code: number) => code < 500)]);
      expect(headers.has('x-injected')).toBe(false);
    }
  });
});

describe('a request', () => {
  it('has the method of its first line, whatever its headers say', async () => {
    for (const name of ['x-http-method-override', 'x-http-method', 'x-method-override']) {
      const headers = { ...json, [name]: 'POST' };
      const read = await gateway.fetch('/graphql?query=mutation{__typename}', { headers });
      expect(read.status).toBe(405);
      expect((await gateway.fetch('/api/v1/agents/none/send', { headers })).status).toBe(405);
    }
  });

  it('is sent nowhere else', async () => {
    const { hostname, port } = new URL(gateway.url);
    for (const path of [
      '//evil.example',
      '/\\evil.example',
      '/graphql/',
      '/agents/..%2f..%2fmetrics',
      '/%2e%2e/metrics',
    ]) {
      const answer = await new Promise<IncomingMessage>((resolve, reject) =>
        request({ hostname, port, path }, resolve).on('error', reject).end(),
      );
      answer.resume();
      expect([path, answer.headers.location]).toEqual([path, undefined]);
      expect(answer.statusCode).toBeGreaterThanOrEqual(400);
    }
  });

  it('lets nobody in by a token in the address', async () => {
    for (const name of ['token', 'access_token', 'authorization']) {
      const query = `${name}=${gateway.token}`;
      for (const path of [`/graphql?query={__typename}&${query}`, `/agents?${query}`, `/metrics?${query}`])
        expect((await gateway.fetch(path, { authorization: null })).status).toBe(401);
      const socket = new WebSocket(`${gateway.subscriptionUrl}?${query}`, 'graphql-transport-ws');
      socket.on('open', () => socket.send('{"type":"connection_init"}'));
      expect(await new Promise((resolve) => socket.on('close', resolve))).toBe(4403);
    }
  });

  it('is read as it was sent: what is compressed is no JSON', async () => {
    for (const encoding of ['gzip', 'deflate', 'br']) {
      const headers = { ...json, 'content-encoding': encoding };
      const body = new Uint8Array([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
      for (const path of ['/graphql', '/api/v1/agents/none/send'])
        expect((await gateway.fetch(path, { method: 'POST', headers, body })).status).toBe(400);
    }
  });
});

describe('an agent', () => {
  it('registers nobody as more than it is, whatever members it adds', async () => {
    const key = nativeCrypto.generateSigningKey();
    const more = {
      enrollment: 'approved',
      uid: 'mine',
      labels: ['trusted'],
      note: 'trust me',
      epoch: 1,
      trusted: true,
    };
    const begun = await post(
      '/agents/register/init',
      { ...more, org_id: 'elsewhere', host_id: 'host-1', agent_pubkey: Buffer.from(key.publicKey).toString('base64') },
      null,
    );
    const { registration_id, nonce, server_time } = await begun.json();
    const signed = Buffer.concat([Buffer.from(nonce, 'base64'), Buffer.from(`${server_time}host-1`)]);
    const signature = Buffer.from(key.sign(signed)).toString('base64');
    const completed = { ...more, org_id: 'elsewhere', registration_id, host_id: 'host-1', signature };
    expect((await post('/agents/register/complete', completed, null)).status).toBe(200);
    const found = await post('/graphql', { query: '{ agents { nodes { orgId enrollment labels note } } }' });
    expect((await found.json()).data.agents.nodes).toEqual([
      { orgId: 'default-org', enrollment: 'PENDING', labels: [], note: null },
    ]);
  });
});
