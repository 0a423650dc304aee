import {
  type GraphQLArgument,
  type GraphQLField,
  type GraphQLInputType,
  getNamedType,
  isEnumType,
  isInputObjectType,
  isLeafType,
  isListType,
  isNonNullType,
  isRequiredArgument,
  isRequiredInputField,
} from 'graphql';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { buildSchema } from '../../src/schema/schema.ts';
import { type ConsumerStage, startConsumerStage } from './consumer-stage.ts';

/** A literal that validates: so that nothing but the missing credentials can be what refuses. */
function literalOf(type: GraphQLInputType): string {
  if (isNonNullType(type)) return literalOf(type.ofType);
  if (isListType(type)) return '[]';
  if (isEnumType(type)) return type.getValues()[0]?.name ?? '';
  if (isInputObjectType(type)) {
    const fields = Object.values(type.getFields()).filter(isRequiredInputField);
    return `{${fields.map((field) => `${field.name}: ${literalOf(field.type)}`).join(', ')}}`;
  }
  return type.name === 'Boolean' ? 'true' : type.name === 'Int' ? '1' : '"nobody"';
}

function documentOf(operation: string, field: GraphQLField<unknown, unknown>): string {
  const required = field.args.filter((argument: GraphQLArgument) => isRequiredArgument(argument));
  const given = required.map((argument) => `${argument.name}: ${literalOf(argument.type)}`);
  const selection = isLeafType(getNamedType(field.type)) ? '' : ' { __typename }';
  return `${operation} { ${field.name}${given.length > 0 ? `(${given.join(', ')})` : ''}${selection} }`;
}

const schema = buildSchema();
const operations = [schema.getQueryType(), schema.getMutationType(), schema.getSubscriptionType()].flatMap((type) =>
  Object.values(type?.getFields() ?? {}).map((field) => ({
    name: `${type?.name}.${field.name}`,
    document: documentOf(type?.name.toLowerCase() ?? '', field),
  })),
);

let stage: ConsumerStage;
beforeAll(async () => {
  // Nobody may show wrong credentials for ever: each operation is asked for from an address of its own.
  stage = await startConsumerStage({ env: { TRUST_PROXY: '127.0.0.1' } });
});
afterAll(() => stage.stop());

test('there are operations of every sort to be refused', () => {
  for (const sort of ['Query.', 'Mutation.', 'Subscription.'])
    expect(operations.filter(({ name }) => name.startsWith(sort)).length).toBeGreaterThan(5);
});

describe.each(operations)('$name', ({ name, document }) => {
  const address = `192.0.2.${operations.findIndex((operation) => operation.name === name)}`;

  test('is refused without a token, and with a wrong one', async () => {
    for (const authorization of [null, 'Bearer wrong', 'Basic dXNlcjpwYXNz', 'Bearer']) {
      const refused = await stage.post({ query: document }, { authorization, headers: { 'x-forwarded-for': address } });
      expect(refused.status).toBe(401);
      expect(refused.headers.get('www-authenticate')).toBe('Bearer');
      expect(refused.answer).toEqual({
        errors: [{ message: 'Credentials are missing or not valid', extensions: { code: 'UNAUTHENTICATED' } }],
      });
    }
  });

  test('is executed with the token', async () => {
    if (document.startsWith('subscription')) {
      // Over HTTP a subscription needs a stream: see subscriptions.test.ts.
      const response = await stage.gateway.fetch('/graphql', {
        method: 'POST',
        headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
        body: JSON.stringify({ query: document }),
      });
      expect(response.status).toBe(200);
      await response.body?.cancel();
      return;
    }
    const { status, answer } = await stage.post({ query: document });
    expect(status).toBe(200);
    const codes = (answer.errors ?? []).map((error) => error.extensions.code);
    expect(codes).not.toContain('UNAUTHENTICATED');
    expect(codes).not.toContain('GRAPHQL_VALIDATION_FAILED');
    expect(codes).not.toContain('INTERNAL_SERVER_ERROR');
  });
});

test('introspection is refused without a token', async () => {
  const { status, answer } = await stage.post({ query: '{ __schema { types { name } } }' }, { authorization: null });
  expect(status).toBe(401);
  expect(answer.data).toBeUndefined();
});

describe('over WebSocket', () => {
  test.each([
    ['no parameters', undefined],
    ['no token', {}],
    ['a wrong token', { authorization: 'Bearer wrong' }],
    ['a token of another type', { authorization: ['x'] }],
  ])('%s closes with 4403', async (_name, payload) => {
    expect(await closeCodeOf(JSON.stringify({ type: 'connection_init', payload }))).toBe(4403);
  });

  test('an operation before the connection is acknowledged closes with 4401', async () => {
    const subscribe = JSON.stringify({ id: '1', type: 'subscribe', payload: { query: '{ __typename }' } });
    expect(await closeCodeOf(subscribe)).toBe(4401);
  });

  test('a wrong token among the parameters is not made good by the header of the upgrade', async () => {
    const headers = { authorization: `Bearer ${stage.gateway.token}` };
    const init = { type: 'connection_init', payload: { authorization: 'Bearer wrong' } };
    expect(await closeCodeOf(JSON.stringify(init), headers)).toBe(4403);
  });

  test('the token is taken from the parameters, in any case, and from the header of the upgrade', async () => {
    const bearer = `Bearer ${stage.gateway.token}`;
    for (const payload of [{ authorization: bearer }, { Authorization: bearer }])
      expect(await acknowledged(JSON.stringify({ type: 'connection_init', payload }))).toBe(true);
    expect(await acknowledged(JSON.stringify({ type: 'connection_init' }), { authorization: bearer })).toBe(true);
  });
});

function open(headers: Record<string, string> = {}): WebSocket {
  return new WebSocket(stage.gateway.subscriptionUrl, 'graphql-transport-ws', { headers });
}

function closeCodeOf(first: string, headers?: Record<string, string>): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = open(headers);
    socket.on('open', () => socket.send(first));
    socket.on('close', resolve);
    socket.on('error', reject);
  });
}

function acknowledged(first: string, headers?: Record<string, string>): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = open(headers);
    socket.on('open', () => socket.send(first));
    socket.on('message', (message) => {
      socket.close();
      resolve(String(message).includes('connection_ack'));
    });
    socket.on('close', () => resolve(false));
    socket.on('error', reject);
  });
}
