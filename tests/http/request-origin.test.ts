import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { createRequestOrigin } from '../../src/http/request-origin.ts';
import { type Stage, startStage } from '../agent-gateway/stage.ts';

/** What a gateway behind these proxies takes for the client's address. */
function clientOf(proxies: readonly string[], remoteAddress: string | undefined, forwarded?: string): string | null {
  const headers = forwarded === undefined ? {} : { 'x-forwarded-for': forwarded };
  return createRequestOrigin(proxies)({ socket: { remoteAddress }, headers }).clientAddress;
}

describe("the client's address", () => {
  const proxies = ['10.0.0.0/8', '2001:db8:1::/48'];

  it("is the socket's where nobody is trusted, whatever the headers say", () => {
    expect(clientOf([], '203.0.113.5', '198.51.100.1')).toBe('203.0.113.5');
    expect(clientOf([], '127.0.0.1', '198.51.100.1')).toBe('127.0.0.1');
    expect(clientOf([], '::ffff:203.0.113.5')).toBe('203.0.113.5');
    expect(clientOf([], undefined, '198.51.100.1')).toBeNull();
  });

  it.each([
    ['one proxy', '10.0.0.1', '198.51.100.1', '198.51.100.1'],
    ['one proxy that writes IPv6', '10.0.0.1', '2001:DB8::0:7', '2001:db8::7'],
    ['two proxies', '10.0.0.1', '198.51.100.1, 10.0.0.2', '198.51.100.1'],
    ['a proxy over IPv6', '2001:db8:1::9', '198.51.100.1', '198.51.100.1'],
    ['a proxy on a socket of both kinds', '::ffff:10.0.0.1', '198.51.100.1', '198.51.100.1'],
    ['a proxy that adds ports', '10.0.0.1', '198.51.100.1:4711, 10.0.0.2:80', '198.51.100.1'],
    ['a proxy that adds ports to IPv6', '10.0.0.1', '[2001:db8::7]:4711', '2001:db8::7'],
    ['a proxy that says nothing', '10.0.0.1', undefined, '10.0.0.1'],
    ['proxies all the way', '10.0.0.1', '10.0.0.3, 10.0.0.2', '10.0.0.3'],
  ])('is what trusted proxies say: %s', (_what, remote, forwarded, client) => {
    expect(clientOf(proxies, remote, forwarded)).toBe(client);
  });

  it.each([
    ['a client that writes the header itself', '203.0.113.5', '10.0.0.1', '203.0.113.5'],
    ['a client that names another behind a proxy', '10.0.0.1', '192.0.2.99, 198.51.100.1', '198.51.100.1'],
    ['a client that names a trusted one', '10.0.0.1', '192.0.2.99, 10.0.0.9, 198.51.100.1', '198.51.100.1'],
    ['what is no address', '10.0.0.1', '198.51.100.1, unknown', '10.0.0.1'],
    ['what is no address, behind a second proxy', '10.0.0.1', '198.51.100.1, <script>, 10.0.0.2', '10.0.0.2'],
    ['an empty entry', '10.0.0.1', '198.51.100.1,', '10.0.0.1'],
    ['an empty header', '10.0.0.1', '', '10.0.0.1'],
    ['an address in brackets that belongs into none', '10.0.0.1', '[198.51.100.1]', '10.0.0.1'],
  ])('is not what anyone else says: %s', (_what, remote, forwarded, client) => {
    expect(clientOf(proxies, remote, forwarded)).toBe(client);
  });

  it('depends on nothing that stands left of the rightmost hop that is not trusted', () => {
    fc.assert(
      fc.property(fc.string(), fc.ipV4(), (said, client) => {
        fc.pre(!client.startsWith('10.'));
        expect(clientOf(proxies, '10.0.0.1', `${said},${client}`)).toBe(client);
      }),
    );
  });
});

describe("the caller's trace", () => {
  const traceOf = (traceparent: string) =>
    createRequestOrigin([])({ socket: {}, headers: { traceparent } }).traceparent;
  const [traceId, spanId] = ['0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331'];

  it('is taken where it is sound', () => {
    expect(traceOf(`00-${traceId}-${spanId}-01`)).toBe(`00-${traceId}-${spanId}-01`);
    expect(traceOf(`01-${traceId}-${spanId}-01-more`)).toBe(`01-${traceId}-${spanId}-01`);
  });

  it.each([
    ['nothing', ''],
    ['no trace', `00-${'0'.repeat(32)}-${spanId}-01`],
    ['no span', `00-${traceId}-${'0'.repeat(16)}-01`],
    ['capitals', `00-${traceId.toUpperCase()}-${spanId}-01`],
    ['a version that there is never to be', `ff-${traceId}-${spanId}-01`],
    ['more than its version knows', `00-${traceId}-${spanId}-01-more`],
    ['too much', `00-${traceId}-${spanId}-011`],
    ['two of them', `00-${traceId}-${spanId}-01, 00-${traceId}-${spanId}-01`],
  ])('is none where it is %s', (_what, given) => {
    expect(traceOf(given)).toBeNull();
  });
});

describe("an agent's address", () => {
  let stage: Stage;
  afterEach(() => stage.stop());

  async function addressOf(forwarded: string): Promise<string | null> {
    const headers = { 'X-Agent-ID': 'host-1', 'X-Forwarded-For': forwarded };
    const agent = await stage.registered({ agentId: 'host-1', headers });
    const data = await stage.ask('query ($ref: ID!) { agent(agentId: $ref) { session { remoteAddress } } }', {
      ref: agent.agentId,
    });
    const schema = z.object({ agent: z.object({ session: z.object({ remoteAddress: z.string().nullable() }) }) });
    return schema.parse(data).agent.session.remoteAddress;
  }

  it('is the one that a trusted proxy tells', async () => {
    stage = await startStage({ env: { TRUST_PROXY: '127.0.0.0/8' } });
    expect(await addressOf('192.0.2.99, 198.51.100.1')).toBe('198.51.100.1');
  });

  it('is not the one that it tells itself', async () => {
    stage = await startStage();
    expect(await addressOf('198.51.100.1')).toBe('127.0.0.1');
  });
});
