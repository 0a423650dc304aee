import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { makeKey } from '../access/stage.ts';
import { openRawSubscriber, type RawSubscriber } from '../streams/raw-subscriber.ts';
import { eventually } from '../support/eventually.ts';
import { startTestGateway, type TestGateway } from '../support/gateway.ts';

const limit = 4;
const watching = 'subscription { events { ... on Event { cursor } } }';

let gateway: TestGateway;
const open: { terminate(): void }[] = [];
beforeAll(async () => {
  gateway = await startTestGateway({ env: { STREAM_LIMIT: String(limit), TRUST_PROXY: '127.0.0.1' } });
});
afterAll(() => gateway.stop());

const newKey = async () => (await makeKey(gateway, { scopes: ['events:read'], orgId: 'acme' })).key;

function endAll(): void {
  for (const socket of open.splice(0)) socket.terminate();
}

/** The status of an upgrade from this address, whose socket stays open and says nothing. */
function upgradeFrom(address: string): Promise<number> {
  return new Promise((resolve) => {
    const socket = new WebSocket(gateway.subscriptionUrl, 'graphql-transport-ws', {
      headers: { 'x-forwarded-for': address },
    });
    open.push(socket);
    socket.on('error', () => {});
    socket.on('open', () => resolve(101));
    socket.on('unexpected-response', (_request, { statusCode = 0 }) => resolve(statusCode));
  });
}

async function subscriberOf(key: string): Promise<RawSubscriber> {
  const subscriber = await openRawSubscriber(gateway.url, key);
  open.push(subscriber.socket);
  return subscriber;
}

/** The status of a subscription over Server-Sent Events, which goes on. */
async function streamOf(key: string): Promise<number> {
  const aborting = new AbortController();
  const { status } = await fetch(`${gateway.url}/graphql`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json', accept: 'text/event-stream' },
    body: JSON.stringify({ query: watching }),
    signal: aborting.signal,
  });
  open.push({ terminate: () => aborting.abort() });
  return status;
}

describe('what stays open at once', () => {
  it('is so many sockets of one address, whoever is behind it, and again so many once they are gone', async () => {
    for (let left = limit; left > 0; left--) expect(await upgradeFrom('192.0.2.1')).toBe(101);
    expect(await upgradeFrom('192.0.2.1')).toBe(429);
    expect(await upgradeFrom('192.0.2.2')).toBe(101);
    endAll();
    await eventually(async () => (await upgradeFrom('192.0.2.1')) === 101);
    endAll();
  });

  it('is so many sockets of one consumer; the one beyond is closed with 1013', async () => {
    const key = await newKey();
    for (let left = limit; left > 0; left--) await subscriberOf(key);
    const beyond = new WebSocket(gateway.subscriptionUrl, 'graphql-transport-ws', {
      headers: { 'x-forwarded-for': '192.0.2.3' },
    });
    open.push(beyond);
    beyond.on('open', () =>
      beyond.send(JSON.stringify({ type: 'connection_init', payload: { authorization: `Bearer ${key}` } })),
    );
    expect(
      await new Promise((resolve) => beyond.on('close', (code, reason) => resolve([code, String(reason)]))),
    ).toEqual([1013, 'TOO_MANY_STREAMS']);
    endAll();
  });

  it('is so many subscriptions of one consumer over all transports; queries go on', async () => {
    const key = await newKey();
    const subscriber = await subscriberOf(key);
    for (let number = 1; number < limit; number++) subscriber.subscribe(`s${number}`, watching);
    const running = async () => /^aegis_subscriptions (\d+)/m.exec(await (await gateway.fetch('/metrics')).text())?.[1];
    await eventually(async () => (await running()) === String(limit - 1));
    expect(await streamOf(key)).toBe(200);
    expect(await streamOf(key)).toBe(429);
    subscriber.subscribe('beyond', watching);
    expect(await eventually(() => subscriber.messages.find(({ id }) => id === 'beyond'))).toMatchObject({
      type: 'error',
      payload: [{ extensions: { code: 'TOO_MANY_STREAMS' } }],
    });
    subscriber.subscribe('query', '{ __typename }');
    expect(await eventually(() => subscriber.messages.find(({ id }) => id === 'query'))).toMatchObject({
      type: 'next',
    });
    expect(await streamOf(await newKey())).toBe(200);

    subscriber.send({ id: 's1', type: 'complete' });
    await eventually(async () => (await streamOf(key)) === 200);
    expect(await streamOf(key)).toBe(429);
    endAll();
  });
});
