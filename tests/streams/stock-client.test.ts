import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { type CuttingProxy, startCuttingProxy } from './cutting-proxy.ts';
import { type StreamsStage, startStreamsStage } from './stage.ts';
import { followAnomalies } from './stock-client.ts';

let stage: StreamsStage;
let proxy: CuttingProxy;
beforeAll(async () => {
  stage = await startStreamsStage();
  proxy = await startCuttingProxy(stage.url);
});
afterEach(() => stage.untilLive(0));
afterAll(async () => {
  await proxy.close();
  await stage.stop();
});

const read = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8');

test('the docs show the lines that are tested here', () => {
  const [, lines = ''] = /\/\/ <docs>\n(.*)\n *\/\/ <\/docs>/s.exec(read('./stock-client.ts')) ?? [];
  expect(lines).not.toBe('');
  expect(read('../../docs/GRAPHQL.md')).toContain(`\`\`\`ts\n${lines.replaceAll(/^ {2}/gm, '')}\n\`\`\``);
});

test('a stock client with these lines misses nothing and repeats nothing, however often it is cut off', async () => {
  const seen: string[] = [];
  const failures: unknown[] = [];
  const stop = await followAnomalies(
    `${proxy.url.replace('http', 'ws')}/graphql`,
    stage.token,
    ({ messageId }) => seen.push(messageId),
    (reason) => failures.push(reason),
  );
  await stage.untilLive(1);
  // Before the first event, and then after some.
  for (let round = 0; round < 4; round++) {
    proxy.refuse(true);
    proxy.cut();
    await stage.store([round * 2]);
    const dialled = proxy.dialled;
    await eventually(() => proxy.dialled > dialled, 10_000);
    proxy.refuse(false);
    await stage.store([round * 2 + 1]);
    await eventually(() => seen.length === round * 2 + 2, 10_000);
  }
  expect(seen).toEqual(Array.from({ length: 8 }, (_, number) => `m${number}`));
  expect(failures).toEqual([]);
  await stop();
}, 60_000);
