import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  AgentsDocument,
  AnomaliesDocument,
  createConsumerClient,
  GatewayDocument,
} from '../../src/consumer-client/client.ts';
import { createDocuments, DocumentsError } from '../../src/http/documents.ts';
import { openRawSubscriber } from '../streams/raw-subscriber.ts';
import { eventually } from '../support/eventually.ts';
import { answerSchema, type ConsumerStage, startConsumerStage } from './consumer-stage.ts';

const directory = mkdtempSync(join(tmpdir(), 'aegis-documents-'));
afterAll(() => rmSync(directory, { recursive: true }));

const hashOf = (text: string) => createHash('sha256').update(text).digest('hex');
const known = 'query Known($first: Int) { agents(first: $first) { totalCount } }';
const knownSubscription = 'subscription { presence { connected } }';
const unknown = '{ __typename }';
const path = join(directory, 'documents.json');
// Both ways to write a key.
writeFileSync(
  path,
  JSON.stringify({ [`sha256:${hashOf(known)}`]: known, [hashOf(knownSubscription)]: knownSubscription }),
);

const byId = (text: string) => ({ documentId: `sha256:${hashOf(text)}` });
const byApollo = (text: string) => ({ extensions: { persistedQuery: { version: 1, sha256Hash: hashOf(text) } } });

/** Codes of the errors, or `ran`. */
type Outcome = readonly string[] | 'ran';
const outcomeOf = (answer: unknown): Outcome => {
  const { errors } = answerSchema.parse(answer);
  return errors ? errors.map(({ extensions }) => extensions.code) : 'ran';
};

let stage: ConsumerStage;
type Params = Readonly<Record<string, unknown>>;
const overHttp = async (params: Params) => outcomeOf((await stage.post(params)).answer);
const overGet = async (params: Params) => {
  const texts = Object.entries(params).map(([name, value]) => [
    name,
    typeof value === 'string' ? value : JSON.stringify(value),
  ]);
  const response = await stage.gateway.fetch(`/graphql?${new URLSearchParams(Object.fromEntries(texts))}`);
  return outcomeOf(await response.json());
};
const overWebSocket = async (params: Params) => {
  const subscriber = await openRawSubscriber(stage.gateway.url, stage.gateway.token);
  try {
    subscriber.send({ id: '1', type: 'subscribe', payload: { query: '', ...params } });
    const { type, payload } = await eventually(() => subscriber.messages[0]);
    return outcomeOf(type === 'error' ? { errors: payload } : payload);
  } finally {
    subscriber.socket.terminate();
  }
};
const transports = [
  ['HTTP', overHttp],
  ['HTTP GET', overGet],
  ['WebSocket', overWebSocket],
] as const;

describe.each([
  ['off', ['PERSISTED_QUERY_NOT_SUPPORTED'], ['PERSISTED_QUERY_NOT_SUPPORTED'], 'ran'],
  ['allow', 'ran', ['PERSISTED_QUERY_NOT_FOUND'], 'ran'],
  ['only', 'ran', ['PERSISTED_QUERY_NOT_FOUND'], ['DOCUMENT_NOT_ALLOWED']],
] as const)('under GRAPHQL_DOCUMENTS=%s', (mode, ofKnownId, ofUnknownId, ofUnknownText) => {
  beforeAll(async () => {
    stage = await startConsumerStage({
      env: { GRAPHQL_DOCUMENTS: mode, ...(mode === 'off' ? {} : { GRAPHQL_DOCUMENTS_PATH: path }) },
    });
  });
  afterAll(() => stage.stop());

  test.each(transports)('over %s ids, and texts, have the right outcome', async (_name, outcome) => {
    for (const naming of [byId, byApollo]) {
      expect(await outcome({ ...naming(known), variables: { first: 1 } })).toEqual(ofKnownId);
      expect(await outcome(naming(unknown))).toEqual(ofUnknownId);
      // Apollo's second try has both.
      expect(await outcome({ ...naming(unknown), query: unknown })).toEqual(ofUnknownText);
      expect(await outcome({ ...naming(known), query: unknown })).toEqual(['BAD_USER_INPUT']);
      // What was sent with its text is not remembered.
      expect(await outcome(naming(unknown))).toEqual(ofUnknownId);
    }
    expect(await outcome({ query: known })).toBe('ran');
    expect(await outcome({ query: unknown })).toEqual(ofUnknownText);
    expect(await outcome({ query: `${known} ` })).toEqual(ofUnknownText === 'ran' ? 'ran' : ['DOCUMENT_NOT_ALLOWED']);
  });

  test.each(transports)('over %s an id that is none is bad input', async (_name, outcome) => {
    const sha = hashOf(known);
    for (const documentId of [sha, `sha256:${sha.toUpperCase()}`, `sha256:${sha}0`, `sha512:${sha}`, 'known'])
      expect(await outcome({ documentId })).toEqual(['BAD_USER_INPUT']);
    for (const persistedQuery of [{}, { version: 2, sha256Hash: sha }, { version: 1, sha256Hash: 'x' }, 'known'])
      expect(await outcome({ extensions: { persistedQuery } })).toEqual(['BAD_USER_INPUT']);
  });

  test('a subscription over Server-Sent Events is named alike', async () => {
    const response = await stage.gateway.fetch('/graphql', {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream, application/json' },
      body: JSON.stringify(byId(knownSubscription)),
    });
    expect(response.headers.get('content-type') === 'text/event-stream').toBe(ofKnownId === 'ran');
    await response.body?.cancel();
  });
});

test('the typed client runs on ids alone, where its manifest is the list', async () => {
  const own = fileURLToPath(new URL('../../src/consumer-client/generated/persisted-documents.json', import.meta.url));
  stage = await startConsumerStage({ env: { GRAPHQL_DOCUMENTS: 'only', GRAPHQL_DOCUMENTS_PATH: own } });
  const { url, token } = stage.gateway;
  const [byIds, byTexts] = [
    createConsumerClient({ url, token, documentIds: true }),
    createConsumerClient({ url, token }),
  ];
  try {
    const agent = await stage.connect('sensor');
    const { agents } = await byIds.query(AgentsDocument, { first: 1 });
    expect(agents.nodes).toHaveLength(1);
    const anomalies = byIds.subscribe(AnomaliesDocument);
    const first = anomalies.next();
    await stage.untilStreaming(1);
    await agent.sendEvent('anomalies', { type: 'beaconing' });
    expect((await first).value.anomalies.type).toBe('beaconing');
    await anomalies.return?.();
    await expect(byTexts.query(GatewayDocument)).rejects.toMatchObject({ code: 'DOCUMENT_NOT_ALLOWED' });
  } finally {
    await byIds.close();
    await byTexts.close();
    await stage.stop();
  }
});

test.each([
  ['is not JSON', 'nothing'],
  ['is no object of texts', '["query"]'],
  ['holds a text under another hash', JSON.stringify({ [`sha256:${hashOf(known)}`]: unknown })],
  ['holds a text under a name', JSON.stringify({ known })],
])('a manifest that %s is refused at the start', (_what, text) => {
  const wrong = join(directory, 'wrong.json');
  writeFileSync(wrong, text);
  expect(() => createDocuments('only', wrong)).toThrow(DocumentsError);
  expect(() => createDocuments('only', wrong)).toThrow(wrong);
});
