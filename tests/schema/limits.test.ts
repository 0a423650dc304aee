import { getIntrospectionQuery, parse } from 'graphql';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  checkDocument,
  maxAliases,
  maxDirectives,
  maxIntrospectionDepth,
  maxRepeatedFields,
} from '../../src/http/document-limits.ts';
import {
  maxDocumentCharacters,
  maxDocumentTokens,
  maxSubscriptionCharacters,
} from '../../src/http/graphql-execution.ts';
import { maxIdCharacters, maxSocketOperations } from '../../src/http/graphql-socket.ts';
import { openRawSubscriber } from '../streams/raw-subscriber.ts';
import { eventually } from '../support/eventually.ts';
import { answerSchema, type ConsumerStage, startConsumerStage } from './consumer-stage.ts';

const maxDepth = 9;
const maxCost = 1_000;

let stage: ConsumerStage;
beforeAll(async () => {
  stage = await startConsumerStage({
    env: { GRAPHQL_MAX_DEPTH: String(maxDepth), GRAPHQL_MAX_COST: String(maxCost) },
  });
  await stage.connect('sensor');
});
afterAll(() => stage.stop());

type Variables = Readonly<Record<string, unknown>>;
/** The errors of an operation that is refused, as code and text; of one that runs, none. */
type Refusal = readonly { readonly code: string; readonly message: string }[];

/** Selects from a message, so that the same selection does for a query and a subscription; levels and objects count alike. */
interface Selection {
  readonly fields: string;
  readonly fragments?: string;
  readonly parameters?: string;
  readonly variables?: Variables;
}

const nobody = '00000000-0000-4000-8000-000000000000';
const queryOf = ({ fields, fragments = '', parameters = '' }: Selection) =>
  `query ${parameters} { message(id: "${nobody}") { ${fields} } } ${fragments}`;
const subscriptionOf = ({ fields, fragments = '', parameters = '' }: Selection) =>
  `subscription ${parameters} { messageUpdates(agentId: "sensor") { ${fields} } } ${fragments}`;

function refusalIn(answer: unknown): Refusal {
  return (answerSchema.parse(answer).errors ?? []).map(({ message, extensions }) => ({ ...extensions, message }));
}

async function overHttp(selection: Selection): Promise<Refusal> {
  const { answer, status } = await stage.post(
    { query: queryOf(selection), variables: selection.variables },
    { headers: { accept: 'application/graphql-response+json' } },
  );
  expect(status).toBe(answer.errors ? 400 : 200);
  return refusalIn(answer);
}

async function overSse(selection: Selection): Promise<Refusal> {
  const response = await stage.gateway.fetch('/graphql', {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'text/event-stream, application/graphql-response+json' },
    body: JSON.stringify({ query: subscriptionOf(selection), variables: selection.variables }),
  });
  const isStream = response.headers.get('content-type') === 'text/event-stream';
  if (!isStream) return refusalIn(await response.json());
  await response.body?.cancel();
  return [];
}

async function overWebSocket(selection: Selection): Promise<Refusal> {
  const subscriber = await openRawSubscriber(stage.gateway.url, stage.gateway.token);
  try {
    subscriber.subscribe('1', queryOf(selection), selection.variables);
    const { type, payload } = await eventually(() => subscriber.messages[0]);
    return refusalIn(type === 'error' ? { errors: payload } : payload);
  } finally {
    subscriber.socket.terminate();
  }
}

const many = (count: number, text: (index: number) => string) =>
  Array.from({ length: count }, (_, index) => text(index)).join(' ');
const tooComplex = (what: string, value: number, limit: number): Refusal => [
  { code: 'QUERY_TOO_COMPLEX', message: `The document has a ${what} of ${value}; the limit is ${limit}` },
];
const failsToParse = (message: string): Refusal => [{ code: 'GRAPHQL_PARSE_FAILED', message }];

/** Four levels around the inner ones; the message is another. */
const twoAgentsDeep = (inner: string) => `agent { messages(first: 1) { nodes { agent { ${inner} } } } }`;

describe.each([
  ['HTTP', overHttp],
  ['Server-Sent Events', overSse],
  ['WebSocket', overWebSocket],
])('over %s a document', (_transport, refusalOf) => {
  test(`goes ${maxDepth} levels deep and no deeper`, async () => {
    expect(await refusalOf({ fields: twoAgentsDeep('messages(first: 1) { nodes { agent { uid } } }') })).toEqual([]);
    expect(
      await refusalOf({ fields: twoAgentsDeep('messages(first: 1) { nodes { agent { session { protocol } } } }') }),
    ).toEqual(tooComplex('depth', maxDepth + 1, maxDepth));
  });

  test('is as deep as the fragments that it spreads', async () => {
    const fragments = 'fragment Deep on Agent { messages(first: 1) { nodes { agent { session { protocol } } } } }';
    expect(await refusalOf({ fields: 'agent { ...Deep }', fragments })).toEqual([]);
    expect(await refusalOf({ fields: twoAgentsDeep('...Deep'), fragments })).toEqual(
      tooComplex('depth', maxDepth + 1, maxDepth),
    );
  });

  test(`has at most ${maxAliases} aliases`, async () => {
    const aliased = (count: number) => ({ fields: many(count, (index) => `a${index}: id`) });
    expect(await refusalOf(aliased(maxAliases))).toEqual([]);
    expect(await refusalOf(aliased(maxAliases + 1))).toEqual(
      tooComplex('number of aliases', maxAliases + 1, maxAliases),
    );
  });

  test(`has at most ${maxDirectives} directives`, async () => {
    const spread = (count: number) => ({
      fields: many(count, () => '...Same @include(if: true)'),
      fragments: 'fragment Same on Message { id }',
    });
    expect(await refusalOf(spread(maxDirectives))).toEqual([]);
    expect(await refusalOf(spread(maxDirectives + 1))).toEqual(
      tooComplex('number of directives', maxDirectives + 1, maxDirectives),
    );
  });

  test(`repeats at most ${maxRepeatedFields} fields, in inline fragments too`, async () => {
    const repeated = (count: number) => ({ fields: `id ${many(count, () => 'id')}` });
    const inFragments = (count: number) => ({ fields: `id ${many(count, () => '... { id }')}` });
    const refusal = tooComplex('number of repeated fields', maxRepeatedFields + 1, maxRepeatedFields);
    for (const bomb of [repeated, inFragments]) {
      expect(await refusalOf(bomb(maxRepeatedFields))).toEqual([]);
      expect(await refusalOf(bomb(maxRepeatedFields + 1))).toEqual(refusal);
    }
  });

  test(`has at most ${maxDocumentTokens} tokens`, async () => {
    // Colons and brackets are tokens, commas and spaces are none.
    const listed = (count: number) => ({
      fields: `agent { events(kinds: [${many(count, () => 'LOGS')}]) { nodes { id } } }`,
    });
    expect(await refusalOf(listed(maxDocumentTokens - 60))).toEqual([]);
    expect(await refusalOf(listed(maxDocumentTokens))).toEqual(
      failsToParse(`Syntax Error: Document contains more that ${maxDocumentTokens} tokens. Parsing aborted.`),
    );
  });

  test(`has at most ${maxDocumentCharacters} characters`, async () => {
    const spaced = (count: number) => ({ fields: `id${' '.repeat(count)}` });
    expect(await refusalOf(spaced(maxDocumentCharacters - 120))).toEqual([]);
    expect(await refusalOf(spaced(maxDocumentCharacters))).toEqual(
      failsToParse(`The document has more than ${maxDocumentCharacters} characters`),
    );
  });

  test('that asks for a page of a page costs the product of both', async () => {
    const paged = (outer: number, inner: number) => ({
      fields: `broadcast { messages(first: ${outer}) { nodes { agent { events(last: ${inner}) { nodes { id } } } } } }`,
    });
    // Two pages, the message and the broadcast; for each message of the page an agent with its own page.
    const costOf = (outer: number, inner: number) => 3 + outer * (1 + 1 + 1 + inner);
    expect(costOf(18, 50)).toBe(957);
    expect(await refusalOf(paged(18, 50))).toEqual([]);
    expect(await refusalOf(paged(19, 50))).toEqual(tooComplex('cost', costOf(19, 50), maxCost));
    expect(await refusalOf(paged(100, 100))).toEqual(tooComplex('cost', costOf(100, 100), maxCost));
  });

  test('costs what its variables ask for, and their defaults, not what it cost before', async () => {
    const fields = 'agent { messages(first: $n) { nodes { agent { uid } } } }';
    const sized = (n?: number | null) => ({ fields, parameters: '($n: Int)', variables: { n } });
    // The message, its agent and the page; each message of it with its agent.
    const costOf = (n: number) => 3 + n * 2;
    expect(await refusalOf(sized(498))).toEqual([]);
    expect(await refusalOf(sized(499))).toEqual(tooComplex('cost', costOf(499), maxCost));
    expect(await refusalOf(sized(498))).toEqual([]);
    expect(await refusalOf(sized(null))).toEqual([]);
    const defaulted = (n: number, variables: Variables) => ({ fields, parameters: `($n: Int = ${n})`, variables });
    expect(await refusalOf(defaulted(499, {}))).toEqual(tooComplex('cost', costOf(499), maxCost));
    expect(await refusalOf(defaulted(499, { n: 1 }))).toEqual([]);
    expect(await refusalOf(defaulted(1, {}))).toEqual([]);
  });

  test('counts lists and pages without a size as 50', async () => {
    const unsized = (page: string) => ({ fields: `agent { messages${page} { edges { node { replies { id } } } } }` });
    expect(await refusalOf(unsized(''))).toEqual(tooComplex('cost', 3 + 50 * (2 + 50), maxCost));
    expect(await refusalOf(unsized('(first: 19)'))).toEqual([]);
    expect(await refusalOf(unsized('(first: 20)'))).toEqual(tooComplex('cost', 3 + 20 * (2 + 50), maxCost));
  });

  test('costs as much as the fragments that it spreads, each time', async () => {
    const fragments =
      'fragment Page on MessageConnection { nodes { ...Reader } } fragment Reader on Message { agent { uid } }';
    const spread = (first: number) => ({ fields: `agent { messages(first: ${first}) { ...Page } }`, fragments });
    expect(await refusalOf(spread(498))).toEqual([]);
    expect(await refusalOf(spread(499))).toEqual(tooComplex('cost', 1_001, maxCost));
  });

  test('whose fragments double each other a thousand times over is refused, or taken, at once', async () => {
    const doubling = (inner: string, depth: number) => ({
      fields: '...F0',
      fragments: `${many(depth, (index) => `fragment F${index} on Message { ...F${index + 1} ...F${index + 1} }`)} fragment F${depth} on Message { ${inner} }`,
    });
    expect(await refusalOf(doubling('id', 200))).toEqual([]);
    const [refused] = await refusalOf(doubling('agent { uid }', 200));
    expect(refused?.code).toBe('QUERY_TOO_COMPLEX');
  });

  test('whose fragments spread each other in a circle is not valid', async () => {
    const fragments = 'fragment A on Message { ...B } fragment B on Message { ...A }';
    const [refused] = await refusalOf({ fields: '...A', fragments });
    expect(refused?.code).toBe('GRAPHQL_VALIDATION_FAILED');
  });
});

describe('introspection', () => {
  const whole = getIntrospectionQuery({
    descriptions: true,
    schemaDescription: true,
    specifiedByUrl: true,
    directiveIsRepeatable: true,
    inputValueDeprecation: true,
    oneOf: true,
  });

  test('passes as a whole whatever depth and cost are allowed', async () => {
    const { answer } = await stage.post({ query: whole });
    expect(answer.errors).toBeUndefined();
    expect(answer.data).toHaveProperty('__schema.types');
  });

  test(`goes ${maxIntrospectionDepth} levels deep and no deeper`, () => {
    const nested = (depth: number) =>
      `{ __type(name: "Agent") { ${'ofType { '.repeat(depth - 2)} name ${'}'.repeat(depth - 2)} } }`;
    expect(() => checkDocument(parse(nested(maxIntrospectionDepth)), 1)).not.toThrow();
    expect(() => checkDocument(parse(nested(maxIntrospectionDepth + 1)), 1)).toThrow('depth of 16');
  });

  test('asks for lists of lists of lists in vain', async () => {
    const fields = (inner: string) => `fields { type { ${inner} } }`;
    const asked = (inner: string) => `{ __schema { types { ${inner} } } }`;
    expect(await stage.codesOf(asked(fields(fields('name'))))).toEqual([]);
    expect(await stage.codesOf(asked(fields(fields(fields('name')))))).toEqual(['GRAPHQL_VALIDATION_FAILED']);
  });
});

describe('in production', () => {
  let production: ConsumerStage;
  beforeAll(async () => {
    production = await startConsumerStage({ env: { NODE_ENV: 'production' } });
  });
  afterAll(() => production.stop());

  test('the schema does not tell of itself, but for the names of types in answers', async () => {
    for (const query of ['{ __schema { types { name } } }', '{ __type(name: "Agent") { name } }'])
      expect(await production.codesOf(query)).toContain('GRAPHQL_VALIDATION_FAILED');
    expect(await production.ask('{ __typename }')).toEqual({ __typename: 'Query' });
    const subscriber = await openRawSubscriber(production.gateway.url, production.gateway.token);
    subscriber.subscribe('1', '{ __schema { queryType { name } } }');
    expect((await eventually(() => subscriber.messages[0])).type).toBe('error');
    subscriber.socket.terminate();
  });

  test.each([
    ['fields', '{ agnts { totalCount } }', {}],
    ['arguments', '{ agents(frst: 1) { totalCount } }', {}],
    ['values', '{ events(minSeverity: HIHG) { nodes { id } } }', {}],
    ['variables', 'query ($s: Severity) { events(minSeverity: $s) { nodes { id } } }', { s: 'HIHG' }],
  ])('no error suggests %s', async (_what, query, variables) => {
    const [inDevelopment, inProduction] = await Promise.all([
      stage.post({ query, variables }),
      production.post({ query, variables }),
    ]);
    expect(inDevelopment.answer.errors?.[0]?.message).toContain('Did you mean');
    expect(inProduction.answer.errors?.[0]?.message).not.toContain('Did you mean');
    expect(inProduction.answer.errors).toHaveLength(1);
  });
});

test(`a socket runs ${maxSocketOperations} operations at once and no more, and others once some have ended`, async () => {
  const subscriber = await openRawSubscriber(stage.gateway.url, stage.gateway.token);
  try {
    for (let id = 0; id <= maxSocketOperations; id++)
      subscriber.subscribe(String(id), 'subscription { presence { connected } }');
    const refused = await eventually(() => subscriber.messages[0]);
    expect(refused).toMatchObject({
      id: String(maxSocketOperations),
      type: 'error',
      payload: [{ extensions: { code: 'TOO_MANY_OPERATIONS' } }],
    });
    subscriber.send({ id: '0', type: 'complete' });
    subscriber.subscribe('one more', '{ __typename }');
    expect(await eventually(() => subscriber.messages[1])).toMatchObject({ id: 'one more', type: 'next' });
  } finally {
    subscriber.socket.terminate();
  }
});

test(`a subscription has at most ${maxSubscriptionCharacters} characters with its variables, which are held while it runs; a query may have more`, async () => {
  const subscriber = await openRawSubscriber(stage.gateway.url, stage.gateway.token);
  const following = 'subscription ($agent: ID!) { messageUpdates(agentId: $agent) { id } }';
  const length = (agent: string) => JSON.stringify({ query: following, variables: { agent } }).length;
  const agentOf = (characters: number) => 'a'.repeat(characters - length(''));
  try {
    subscriber.subscribe('within', following, { agent: agentOf(maxSubscriptionCharacters) });
    subscriber.subscribe('beyond', following, { agent: agentOf(maxSubscriptionCharacters + 1) });
    subscriber.subscribe('query', 'query ($agent: ID!) { agent(agentId: $agent) { uid } }', {
      agent: agentOf(2 * maxSubscriptionCharacters),
    });
    const answerTo = async (id: string) =>
      JSON.stringify(await eventually(() => subscriber.messages.find((message) => message.id === id)));
    expect(await answerTo('beyond')).toContain('QUERY_TOO_COMPLEX');
    // A name is shorter.
    for (const id of ['within', 'query']) expect(await answerTo(id)).toContain('BAD_USER_INPUT');
  } finally {
    subscriber.socket.terminate();
  }
});

test(`an operation over WebSocket has an id of at most ${maxIdCharacters} characters`, async () => {
  const subscriber = await openRawSubscriber(stage.gateway.url, stage.gateway.token);
  const [within, beyond] = ['i'.repeat(maxIdCharacters), 'i'.repeat(maxIdCharacters + 1)];
  try {
    for (const id of [within, beyond]) subscriber.subscribe(id, '{ __typename }');
    expect(await eventually(() => subscriber.messages.find(({ id }) => id === beyond))).toMatchObject({
      type: 'error',
      payload: [{ extensions: { code: 'BAD_USER_INPUT' } }],
    });
    expect(await eventually(() => subscriber.messages.find(({ id }) => id === within))).toMatchObject({ type: 'next' });
  } finally {
    subscriber.socket.terminate();
  }
});
