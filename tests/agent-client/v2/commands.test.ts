import { describe, expect, it } from 'vitest';
import { type AgentCommand, createMemoryStore } from '../../../src/agent-client/v2/index.ts';
import type { JournalEntry } from '../../../src/agent-client/v2/store.ts';
import { eventually } from '../../support/eventually.ts';
import { useStage } from './stage.ts';

const stage = useStage();

/** An agent with a link, and what its handler was given. */
async function commanded(
  handler: (command: AgentCommand) => unknown = () => null,
  options: Parameters<ReturnType<typeof stage>['start']>[0] = {},
) {
  const { peer, start } = stage();
  const staged = await start(options);
  const given: AgentCommand[] = [];
  staged.agent.onCommand((command) => {
    given.push(command);
    return handler(command);
  });
  await staged.agent.ready();
  return { ...staged, given, link: await peer.opened.next() };
}

const acknowledges = (id: string) => (message: { readonly headers: { readonly ackFor: readonly string[] } }) =>
  message.headers.ackFor.includes(id);

describe('a command', () => {
  it('is acknowledged when it is written down, handed over, and answered as a status', async () => {
    const { peer } = stage();
    const { agent, given, link } = await commanded(() => ({ applied: true }));
    link.command('c-1', { op: 'apply' }, { traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01` });
    expect((await peer.next(acknowledges('c-1'))).message.type).toBe('ack');
    const { message } = await peer.next(({ headers }) => headers.replyTo === 'c-1');
    expect(message).toMatchObject({ type: 'response', channel: 'agent.status', payload: { applied: true } });
    expect(message.headers.traceparent).toMatch(/^00-a/);
    expect(given).toMatchObject([{ id: 'c-1', kind: 'policies', payload: { op: 'apply' } }]);
    await eventually(() => agent.statistics.outboxItems === 0);
  });

  it('keeps its digits', async () => {
    const { peer } = stage();
    const { given, link } = await commanded();
    link.command('c-1', JSON.parse('{"n": 1.5}'));
    await peer.next(({ headers }) => headers.replyTo === 'c-1');
    expect(given[0]?.payloadText).toBe('{"n":1.5}');
  });

  it('that comes again is acknowledged again and not carried out again: over links, and over restarts', async () => {
    const { peer, start } = stage();
    const store = createMemoryStore();
    const { agent, given, link, cameBack } = await commanded(() => null, { store });
    link.command('c-1');
    link.command('c-1');
    await peer.next(acknowledges('c-1'));
    await peer.next(acknowledges('c-1'));
    link.terminate();
    await cameBack();
    (await peer.opened.next()).command('c-1');
    await peer.next(acknowledges('c-1'));
    await eventually(() => given.length === 1);
    await agent.close();
    const second = await start({ store });
    second.agent.onCommand((command) => given.push(command));
    const again = await peer.opened.next();
    again.command('c-1');
    again.command('c-2');
    await peer.next(acknowledges('c-1'));
    await peer.next(({ headers }) => headers.replyTo === 'c-2');
    expect(given.map(({ id }) => id)).toEqual(['c-1', 'c-2']);
    expect(second.agent.statistics).toMatchObject({ commandsTaken: 1, commandsRepeated: 1 });
  });

  it('whose handler throws is answered with an error that says why', async () => {
    const { peer } = stage();
    const { agent, link } = await commanded(() => Promise.reject(new Error('no such policy')));
    link.command('c-1');
    const { message } = await peer.next(({ headers }) => headers.replyTo === 'c-1');
    expect(message).toMatchObject({
      type: 'error',
      payload: { code: 'COMMAND_FAILED', message: 'no such policy', retryable: false },
    });
    // Nobody acknowledges errors: they are done with once they are written.
    await eventually(() => agent.statistics.outboxItems === 0);
  });

  it.each([
    ['nothing', () => undefined, 'null'],
    ['what is too large', () => 'x'.repeat(256 * 1024), 'COMMAND_FAILED'],
    ['what nests too deeply', () => JSON.parse('['.repeat(33) + ']'.repeat(33)), 'COMMAND_FAILED'],
    ['what is no JSON', () => 1n, 'COMMAND_FAILED'],
  ])('whose handler gives %s is answered all the same', async (_, handler, answer) => {
    const { peer } = stage();
    const { link } = await commanded(handler);
    link.command('c-1');
    const { message } = await peer.next(({ headers }) => headers.replyTo === 'c-1');
    expect(message.payloadText).toContain(answer);
  });

  it('waits for its turn, and is not begun once its time is up, whatever the wall clock says', async () => {
    const { peer, clock } = stage();
    let finish: () => void = () => undefined;
    const { given, link } = await commanded(({ id }) =>
      id === 'slow' ? new Promise<void>((resolve) => (finish = resolve)) : null,
    );
    link.command('slow');
    await eventually(() => given.length === 1);
    link.command('late', {}, { expiresInMs: 5_000 });
    link.command('in time', {}, { expiresInMs: 5_001 });
    await peer.next(acknowledges('in time'));
    clock.setWallClock(-86_400_000);
    clock.advance(5_000);
    finish();
    const late = await peer.next(({ headers }) => headers.replyTo === 'late');
    expect(late.message).toMatchObject({ type: 'error', payload: { code: 'COMMAND_EXPIRED' } });
    await peer.next(({ headers }) => headers.replyTo === 'in time');
    expect(given.map(({ id }) => id)).toEqual(['slow', 'in time']);
  });

  it('that was begun when the process ended is not begun again, but answered', async () => {
    const { peer, start } = stage();
    const store = createMemoryStore();
    const { agent, given, link } = await commanded(() => new Promise(() => undefined), { store });
    link.command('c-1');
    link.command('c-2');
    await peer.next(acknowledges('c-2'));
    await eventually(() => given.length === 1);
    await agent.close();
    const second = await start({ store });
    second.agent.onCommand((command) => given.push(command));
    const interrupted = await peer.next(({ headers }) => headers.replyTo === 'c-1');
    expect(interrupted.message).toMatchObject({ type: 'error', payload: { code: 'COMMAND_INTERRUPTED' } });
    await peer.next(({ headers }) => headers.replyTo === 'c-2');
    expect(given.map(({ id }) => id)).toEqual(['c-1', 'c-2']);
  });

  it.each([
    [4_999, 0, true],
    [5_000, 0, false],
    [0, -1, false],
  ])(
    'taken before a restart expires by the wall clock: after %i ms, set by %i',
    async (passedMs, setBackMs, isBegun) => {
      const { peer, clock, start } = stage();
      const store = createMemoryStore();
      const first = await start({ store });
      await first.agent.ready();
      (await peer.opened.next()).command('c-1', {}, { expiresInMs: 5_000 });
      await peer.next(acknowledges('c-1'));
      await first.agent.close();
      clock.advance(passedMs);
      clock.setWallClock(setBackMs);
      const { agent } = await start({ store });
      agent.onCommand(() => 'begun');
      const { message } = await peer.next(({ headers }) => headers.replyTo === 'c-1');
      expect(message.type).toBe(isBegun ? 'response' : 'error');
    },
  );

  it('on a channel that agents do not have is refused', async () => {
    const { peer } = stage();
    const { link } = await commanded();
    link.say({ id: 'c-1', type: 'request', channel: 'backend.lunch' });
    const { message } = await peer.next(acknowledges('c-1'));
    expect(message).toMatchObject({ type: 'error', payload: { code: 'CHANNEL_UNKNOWN', retryable: false } });
  });

  it('beyond 256 that wait is refused for now', async () => {
    const { peer, start } = stage();
    const { agent } = await start();
    await agent.ready();
    const link = await peer.opened.next();
    for (let index = 0; index < 257; index++) link.command(`c-${index}`);
    const { message } = await peer.next(({ type }) => type === 'error');
    expect(message).toMatchObject({ headers: { ackFor: ['c-256'] }, payload: { code: 'QUEUE_FULL', retryable: true } });
    expect(agent.statistics.commandsTaken).toBe(256);
  });

  it('that cannot be written down is refused for now, and taken when it comes again', async () => {
    const { peer } = stage();
    const memory = createMemoryStore();
    let isFull = false;
    const append = (entries: readonly JournalEntry[]) =>
      isFull ? Promise.reject(new Error('ENOSPC')) : memory.append(entries);
    const { given, link, statuses } = await commanded(() => null, { store: { ...memory, append } });
    isFull = true;
    link.command('c-1');
    const { message } = await peer.next(acknowledges('c-1'));
    expect(message).toMatchObject({ type: 'error', payload: { code: 'UNAVAILABLE', retryable: true } });
    await statuses.next(({ type }) => type === 'store-failed');
    isFull = false;
    link.command('c-1');
    await peer.next(({ headers }) => headers.replyTo === 'c-1');
    expect(given).toHaveLength(1);
  });
});

describe('a message of the session', () => {
  it('that this version does not know is acknowledged', async () => {
    const { peer } = stage();
    const { link } = await commanded();
    link.say({ id: 's-1', type: 'event', channel: 'session', payload: { op: 'sing' } });
    expect((await peer.next(acknowledges('s-1'))).message.type).toBe('ack');
  });

  it('that the quarantine is over is told', async () => {
    const { link, statuses } = await commanded();
    link.say({ type: 'event', channel: 'session', payload: { op: 'enrollment', enrollment: 'trusted' } });
    expect(await statuses.next(({ type }) => type === 'enrollment')).toMatchObject({ enrollment: 'trusted' });
  });

  it('that something is wrong is told', async () => {
    const { link, statuses } = await commanded();
    link.say({ type: 'error', channel: 'session', payload: { code: 'UNAVAILABLE', message: 'soon', retryable: true } });
    expect(await statuses.next(({ type }) => type === 'notice')).toMatchObject({ code: 'UNAVAILABLE' });
  });
});
