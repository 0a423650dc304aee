import { describe, expect, it } from 'vitest';
import { createMemoryStore, type ReportOptions } from '../../../src/agent-client/v2/index.ts';
import { eventually } from '../../support/eventually.ts';
import { useStage } from './stage.ts';

const stage = useStage();

describe('a report', () => {
  it('goes out as an event on the channel of its kind, and resolves when the gateway has acknowledged it', async () => {
    const { peer, start } = stage();
    peer.script.acknowledges = false;
    const { agent } = await start();
    let isResolved = false;
    const reported = agent.report('threats', { severity: 'high' }, { id: 'r-1', timestampMs: 5 }).then(() => {
      isResolved = true;
    });
    const { link, message } = await peer.nextOn('agent.threats');
    expect(message).toMatchObject({ id: 'r-1', type: 'event', timestampMs: 5, payload: { severity: 'high' } });
    expect([isResolved, agent.statistics.outboxItems]).toEqual([false, 1]);
    link.acknowledge('r-1');
    await reported;
    expect(agent.statistics).toMatchObject({ outboxItems: 0, outboxBytes: 0, reported: 1, acknowledged: 1 });
  });

  it('shares a record with what was reported in the same turn', async () => {
    const { peer, start } = stage();
    const { agent } = await start();
    await agent.ready();
    await Promise.all(Array.from({ length: 100 }, (_, index) => agent.report('logs', { index })));
    const [link] = peer.opened.entries;
    expect(link?.records.map(({ length }) => length)).toEqual([100]);
  });

  it('is told no while the outbox is full, and the urgent has room beyond that', async () => {
    const { peer, start } = stage();
    peer.script.acknowledges = false;
    const { agent } = await start({ outbox: { maxItems: 10 } });
    const waiting = Array.from({ length: 9 }, (_, index) => agent.report('logs', {}, { id: `r-${index}` }));
    await expect(agent.report('logs', {})).rejects.toMatchObject({ code: 'OUTBOX_FULL' });
    waiting.push(agent.report('threats', {}, { id: 'urgent', priority: 'high' }));
    await expect(agent.report('threats', {}, { priority: 'high' })).rejects.toMatchObject({ code: 'OUTBOX_FULL' });
    const { link } = await peer.next(({ id }) => id === 'urgent');
    link.acknowledge('urgent', ...Array.from({ length: 9 }, (_, index) => `r-${index}`));
    await Promise.all(waiting);
    peer.script.acknowledges = true;
    await agent.report('logs', {});
    expect(agent.statistics).toMatchObject({ acknowledged: 11, refused: 2, outboxItems: 0 });
  });

  it('is told no where its bytes do not fit', async () => {
    const { peer, start } = stage();
    peer.script.acknowledges = false;
    const { agent } = await start({ outbox: { maxBytes: 10_000 } });
    const first = agent.report('logs', 'x'.repeat(8_000), { id: 'first' });
    await expect(agent.report('logs', 'x'.repeat(1_000))).rejects.toMatchObject({ code: 'OUTBOX_FULL' });
    (await peer.next(({ id }) => id === 'first')).link.acknowledge('first');
    await first;
  });

  it.each<[string, unknown, ReportOptions?]>([
    ['a payload that is no JSON', undefined],
    ['a payload that nests too deeply', JSON.parse('['.repeat(33) + ']'.repeat(33))],
    ['a payload beyond 256 KiB', 'x'.repeat(256 * 1024)],
    ['an id with a control character', {}, { id: 'a\nb' }],
    ['a time before 1970', {}, { timestampMs: -1 }],
    ['a malformed traceparent', {}, { traceparent: '00-1' }],
  ])('with %s is refused before anything is sent', async (_, payload, options) => {
    const { agent } = await stage().start();
    await expect(agent.report('logs', payload, options)).rejects.toMatchObject({ code: 'REPORT_INVALID' });
    expect(agent.statistics.outboxItems).toBe(0);
  });

  it('with 256 KiB of payload, nested 32 deep, goes out', async () => {
    const { agent } = await stage().start();
    await agent.report('logs', 'x'.repeat(256 * 1024 - 2));
    await agent.report('logs', JSON.parse('['.repeat(32) + ']'.repeat(32)));
  });

  it('with an id that waits already is refused', async () => {
    const { peer, start } = stage();
    peer.script.acknowledges = false;
    const { agent } = await start();
    const first = agent.report('logs', 1, { id: 'twice' });
    await expect(agent.report('logs', 2, { id: 'twice' })).rejects.toMatchObject({ code: 'REPORT_INVALID' });
    (await peer.next(({ id }) => id === 'twice')).link.acknowledge('twice');
    await first;
  });

  it('that the gateway refuses for good rejects with its code, and leaves', async () => {
    const { peer, start } = stage();
    peer.script.acknowledges = false;
    const { agent } = await start();
    const reported = agent.report('logs', {}, { id: 'r-1' });
    const { link } = await peer.next(({ id }) => id === 'r-1');
    link.refuse(['r-1'], { code: 'FRAME_ID_REUSED', retryable: false });
    await expect(reported).rejects.toMatchObject({ code: 'FRAME_ID_REUSED' });
    expect(agent.statistics.outboxItems).toBe(0);
  });

  it('that the gateway refuses for now is sent again when it says, not before', async () => {
    const { peer, clock, start } = stage();
    peer.script.acknowledges = false;
    const { agent } = await start();
    const reported = agent.report('logs', {}, { id: 'r-1' });
    const { link } = await peer.next(({ id }) => id === 'r-1');
    const timers = clock.pendingTimers;
    link.refuse(['r-1'], { code: 'UNAVAILABLE', retryable: true, retry_after: 3_000 });
    await eventually(() => clock.pendingTimers > timers);
    clock.advance(2_999);
    expect(link.records.flat().filter(({ id }) => id === 'r-1')).toHaveLength(1);
    clock.advance(1);
    await peer.next(({ id }) => id === 'r-1');
    link.acknowledge('r-1');
    await reported;
  });

  it('that is refused for now, and not for how long, is sent again once an acknowledgement would be overdue', async () => {
    const { peer, clock, start } = stage();
    peer.script.acknowledges = false;
    const { agent } = await start();
    const reported = agent.report('logs', {}, { id: 'r-1' });
    const { link } = await peer.next(({ id }) => id === 'r-1');
    const timers = clock.pendingTimers;
    link.refuse(['r-1'], { code: 'UNAVAILABLE', retryable: true });
    await eventually(() => clock.pendingTimers > timers);
    peer.script.acknowledges = true;
    clock.advance(30_000);
    await reported;
    expect(peer.opened.count).toBe(1);
  });

  it('waits while there is no link, and is sent again over the next one, with its id and in its order', async () => {
    const { peer, start } = stage();
    peer.script.acknowledges = false;
    const { agent, cameBack } = await start();
    const before = [1, 2, 3].map((index) => agent.report('logs', { index }, { id: `r-${index}` }));
    const { link } = await peer.next(({ id }) => id === 'r-3');
    link.acknowledge('r-2');
    await before[1];
    link.terminate();
    await eventually(() => agent.state === 'waiting');
    const after = agent.report('logs', { index: 4 }, { id: 'r-4' });
    peer.script.acknowledges = true;
    await cameBack();
    await Promise.all([...before, after]);
    const [, second] = peer.opened.entries;
    expect(
      second?.records
        .flat()
        .filter(({ type }) => type === 'event')
        .map(({ id }) => id),
    ).toEqual(['r-1', 'r-3', 'r-4']);
  });

  it('of high priority goes ahead of what waits', async () => {
    const { peer, start } = stage();
    peer.script.grant = {
      limits: { maxRecordBytes: 327_680, maxBatchMessages: 1, maxInFlightMessages: 1, ackTimeoutMs: 30_000 },
    };
    const { agent } = await start();
    await Promise.all([
      agent.report('logs', {}, { id: 'n-1' }),
      agent.report('logs', {}, { id: 'n-2' }),
      agent.report('threats', {}, { id: 'h-1', priority: 'high' }),
    ]);
    const sent = peer.heard.entries.filter(({ message }) => message.type === 'event').map(({ message }) => message.id);
    expect(sent).toEqual(['h-1', 'n-1', 'n-2']);
  });

  it('survives the agent: the next one with the same store sends it', async () => {
    const { peer, start } = stage();
    peer.script.acknowledges = false;
    const store = createMemoryStore();
    const first = await start({ store });
    const lost = expect(first.agent.report('logs', {}, { id: 'r-1' })).rejects.toMatchObject({ code: 'AGENT_CLOSED' });
    await peer.next(({ id }) => id === 'r-1');
    await first.agent.close();
    await lost;
    const second = await start({ store });
    const { link } = await peer.next(({ id }) => id === 'r-1');
    link.acknowledge('r-1');
    await eventually(() => second.agent.statistics.outboxItems === 0);
    await second.agent.close();
    const third = await start({ store });
    await third.agent.ready();
    expect(third.agent.statistics.outboxItems).toBe(0);
  });
});

describe('the limits of a session', () => {
  it('bound the messages of a record, the bytes of a record, and what is unacknowledged', async () => {
    const { peer, start } = stage();
    const limits = { maxRecordBytes: 2_000, maxBatchMessages: 5, maxInFlightMessages: 7, ackTimeoutMs: 30_000 };
    peer.script.grant = { limits };
    peer.script.acknowledges = false;
    const { agent } = await start();
    const reports = Array.from({ length: 30 }, (_, index) =>
      agent.report('logs', 'x'.repeat(index * 30), { id: `r-${index}` }),
    );
    const ended = Promise.all(reports);
    let unacknowledged = 0;
    const acknowledged = new Set<string>();
    while (acknowledged.size < 30) {
      const { link, message } = await peer.nextOn('agent.logs');
      unacknowledged = link.records.flat().filter(({ type, id }) => type === 'event' && !acknowledged.has(id)).length;
      expect(unacknowledged).toBeLessThanOrEqual(7);
      acknowledged.add(message.id);
      link.acknowledge(message.id);
    }
    await ended;
    const records = peer.opened.entries.flatMap((link) => link.records);
    expect(Math.max(...records.map(({ length }) => length))).toBe(5);
  });

  it('refuse a report that fits into no record of this gateway', async () => {
    const { peer, start } = stage();
    peer.script.grant = {
      limits: { maxRecordBytes: 2_000, maxBatchMessages: 5, maxInFlightMessages: 7, ackTimeoutMs: 30_000 },
    };
    const { agent } = await start();
    await expect(agent.report('logs', 'x'.repeat(2_000))).rejects.toMatchObject({ code: 'REPORT_INVALID' });
    await agent.report('logs', 'x'.repeat(1_500));
  });

  it('end a link on which an acknowledgement does not come in time, and not one on which it does', async () => {
    const { peer, clock, start } = stage();
    peer.script.acknowledges = false;
    const { agent, cameBack } = await start();
    const first = agent.report('logs', {}, { id: 'r-1' });
    const { link } = await peer.next(({ id }) => id === 'r-1');
    clock.advance(29_999);
    link.acknowledge('r-1');
    await first;
    const second = agent.report('logs', {}, { id: 'r-2' });
    await peer.next(({ id }) => id === 'r-2');
    clock.advance(29_999);
    expect(agent.state).toBe('open');
    clock.advance(1);
    peer.script.acknowledges = true;
    expect(await cameBack()).toMatchObject({ code: 4008 });
    await second;
  });
});

describe('a gateway that cannot bear a message', () => {
  it.each([
    [4009, 'a bad record'],
    [1009, ''],
  ])(
    'is sent what was under way one by one, and of the one that it closes at again (%i) nothing more',
    async (...end) => {
      const { peer, start } = stage();
      peer.script.acknowledges = false;
      const { agent, cameBack } = await start();
      const settled = ['good-1', 'bad', 'good-2'].map((id) =>
        agent.report('logs', {}, { id }).then(
          () => 'acknowledged',
          (error: { code: string }) => error.code,
        ),
      );
      for (const id of ['good-1', 'bad']) await peer.next((message) => message.id === id);
      const { link } = await peer.next(({ id }) => id === 'good-2');
      link.close(...end);
      await cameBack();
      (await peer.next(({ id }) => id === 'good-1')).link.acknowledge('good-1');
      (await peer.next(({ id }) => id === 'bad')).link.close(...end);
      await cameBack();
      peer.script.acknowledges = true;
      (await peer.next(({ id }) => id === 'good-2')).link.acknowledge('good-2');
      expect(await Promise.all(settled)).toEqual(['acknowledged', 'RECORD_REFUSED', 'acknowledged']);
    },
  );
});
