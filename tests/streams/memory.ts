import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { eventually } from '../support/eventually.ts';

/** What the heap and the buffers hold, once what nobody holds is gone. */
async function usedBytes(): Promise<number> {
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
  for (let round = 0; round < 4; round++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** The same once it has come to rest: nothing is on its way to anyone any more. */
export async function settledBytes(): Promise<number> {
  let before = await usedBytes();
  return eventually(async () => {
    await new Promise((resolve) => setTimeout(resolve, 300));
    const now = await usedBytes();
    const isAtRest = Math.abs(now - before) < 256 * 1024;
    before = now;
    return isAtRest ? now : null;
  }, 30_000);
}
