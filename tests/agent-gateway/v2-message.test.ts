import { describe, expect, it } from 'vitest';
import { utf8 } from '../../src/agent-gateway/wire/bytes.ts';
import { decodeBatch, encodeBatch } from '../../src/agent-gateway/wire/v2-message.ts';

const message = {
  id: 'm-1',
  type: 'event',
  channel: 'agent.threats',
  payloadText: '{"pid":18446744073709551615,"ratio":1.0}',
  timestampMs: 1_795_436_172_000,
} as const;

describe('a batch of v2 messages', () => {
  it('is read as it was written, its payloads to the digit', () => {
    const batch = encodeBatch([message, { ...message, id: 'm-2', headers: { replyTo: 'c-1', expiresInMs: 5 } }]);
    const noHeaders = { ackFor: [], replyTo: null, expiresInMs: null, traceparent: null };
    const payload = JSON.parse(message.payloadText);
    expect(decodeBatch(batch, 2)).toEqual({
      ok: true,
      value: [
        { ...message, payload, headers: noHeaders },
        { ...message, id: 'm-2', payload, headers: { ...noHeaders, replyTo: 'c-1', expiresInMs: 5 } },
      ],
    });
    expect(decodeBatch(batch, 1)).toEqual({ ok: false, code: 'FRAME_MALFORMED' });
  });

  it('finds a payload wherever it stands, however its name is written, the last of several', () => {
    const text = String.raw`[ {"\u0070ayload" : [1.50, "}\\\"", {"payload":7}] , "channel":"agent.logs","id":"a","type":"event","timestamp":1},
      {"payload":1,"id":"b","channel":"x","headers":{"payload":3},"type":"event","timestamp":1,"payload": 2.0 } ]`;
    const batch = decodeBatch(utf8(text), 9);
    expect(batch.ok && batch.value.map(({ payloadText }) => payloadText)).toEqual([
      String.raw`[1.50, "}\\\"", {"payload":7}]`,
      '2.0',
    ]);
  });
});
