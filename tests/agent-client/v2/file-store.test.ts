import { appendFile, mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createFileStore } from '../../../src/agent-client/v2/node/index.ts';
import type { JournalEntry, OutboxItem, StoredIdentity } from '../../../src/agent-client/v2/store.ts';

const identity: StoredIdentity = {
  ...{ agentId: 'host-1', orgId: null, seed: new Uint8Array(32).fill(1), nextSeed: new Uint8Array(32).fill(2) },
  ...{ uid: 'u', pins: ['p'], configuredPins: [], epoch: 7, enrolledAs: null },
};

function item(id: string, payloadText = '{}'): OutboxItem {
  const address = { id, type: 'event', channel: 'agent.logs', priority: 'normal' } as const;
  return { ...address, payloadText, timestampMs: 1, replyTo: null, traceparent: null };
}

const put = (id: string, payloadText?: string): JournalEntry => ({ op: 'put', item: item(id, payloadText) });

describe('a file store', () => {
  let directory: string;
  let journal: string;
  beforeEach(async () => {
    directory = join(await mkdtemp(join(tmpdir(), 'agent-')), 'store');
    journal = join(directory, 'journal');
  });
  afterEach(() => rm(join(directory, '..'), { recursive: true, force: true }));

  async function written(...entries: readonly (readonly JournalEntry[])[]): Promise<void> {
    const store = createFileStore(directory);
    await store.open();
    await store.saveIdentity(identity);
    for (const line of entries) await store.append(line);
    await store.close();
  }

  async function read() {
    const store = createFileStore(directory);
    const stored = await store.open();
    await store.close();
    return stored;
  }

  it('begins with nothing, and gives back what was written', async () => {
    expect(await read()).toEqual({ identity: null, outbox: [], commands: [], seenIds: [] });
    const command = { id: 'c', kind: 'tests', payloadText: '1', takenAtMs: 1, expiresInMs: 5 } as const;
    await written(
      [put('a'), put('b')],
      [{ op: 'drop', ids: ['a'] }],
      [{ op: 'take', command: { ...command, traceparent: null, isBegun: false } }],
      [{ op: 'begin', id: 'c' }],
    );
    expect(await read()).toEqual({
      identity,
      outbox: [item('b')],
      commands: [{ ...command, traceparent: null, isBegun: true }],
      seenIds: ['c'],
    });
  });

  it('is its owner’s alone', async () => {
    await written([put('a')]);
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
    for (const file of ['identity.json', 'journal'])
      expect((await stat(join(directory, file))).mode & 0o777).toBe(0o600);
  });

  it('drops a last line that was cut short, and goes on behind the one before', async () => {
    await written([put('a')], [put('b')]);
    await truncate(journal, (await stat(journal)).size - 1);
    await written([put('c')]);
    expect((await read()).outbox.map(({ id }) => id)).toEqual(['a', 'c']);
  });

  it('drops a last line of zeros, as some file systems leave one', async () => {
    await written([put('a')]);
    await appendFile(journal, new Uint8Array(50));
    expect((await read()).outbox.map(({ id }) => id)).toEqual(['a']);
  });

  it.each([
    ['a line that was changed', (text: string) => text.replace('agent.logs', 'agent.logz')],
    ['a line that is not its own', (text: string) => `hello\n${text}`],
    ['a line of something else', (text: string) => `352441c2 [{"op":"fly"}]\n${text}`],
  ])('says clearly that it is corrupt where there is %s', async (_, change) => {
    await written([put('a')], [put('b')]);
    await writeFile(journal, change(await readFile(journal, 'utf8')));
    await expect(read()).rejects.toMatchObject({ code: 'STORE_CORRUPT', message: expect.stringContaining('line 1') });
  });

  it.each(['', '{}', '{"version":2}', 'no JSON'])(
    'says so of the identity, without what is in it: %j',
    async (text) => {
      await written();
      await writeFile(join(directory, 'identity.json'), text);
      await expect(read()).rejects.toMatchObject({
        code: 'STORE_CORRUPT',
        message: expect.stringMatching(/identity\.json does not hold an agent's identity$/),
      });
    },
  );

  it('is for one agent at a time, and free again when that is closed or could not open it', async () => {
    const [first, second] = [createFileStore(directory), createFileStore(directory)];
    await first.open();
    await expect(second.open()).rejects.toMatchObject({ code: 'STORE_IN_USE' });
    await first.close();
    await second.open();
    await second.close();
    await writeFile(journal, 'corrupt\n');
    await expect(read()).rejects.toMatchObject({ code: 'STORE_CORRUPT' });
    await expect(read()).rejects.toMatchObject({ code: 'STORE_CORRUPT' });
  });

  it.each([
    ['that is gone', '4194305 x'],
    ['of an earlier boot', `${process.ppid} another-boot`],
    ['that had this pid before', `${process.pid} x`],
    ['that did not get to write its own', ''],
  ])('takes over the lock of a process %s', async (_, content) => {
    await written();
    await writeFile(join(directory, 'lock'), content);
    await read();
  });

  it('refuses a directory that a running process holds', async () => {
    await written();
    const boot = (await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '')).trim();
    await writeFile(join(directory, 'lock'), `${process.ppid} ${boot}`);
    await expect(read()).rejects.toMatchObject({ code: 'STORE_IN_USE' });
  });

  it('stays small however much passes through it, and keeps what is left', async () => {
    const store = createFileStore(directory);
    await store.open();
    await store.append([put('stays')]);
    const large = JSON.stringify('x'.repeat(100_000));
    let largest = 0;
    for (let round = 0; round < 60; round++) {
      await store.append([put(`passes-${round}`, large)]);
      await store.append([{ op: 'drop', ids: [`passes-${round}`] }]);
      largest = Math.max(largest, (await stat(journal)).size);
    }
    await store.append([put('last')]);
    await store.close();
    expect(largest).toBeLessThan(1_400_000);
    expect((await read()).outbox.map(({ id }) => id)).toEqual(['stays', 'last']);
  });

  it('writes nothing once it is closed', async () => {
    const store = createFileStore(directory);
    await store.open();
    await store.close();
    await expect(store.append([put('a')])).rejects.toMatchObject({ code: 'STORE_FAILED' });
  });
});
