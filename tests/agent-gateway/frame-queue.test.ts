import { setImmediate as nextTurn } from 'node:timers/promises';
import { beforeEach, describe, expect, it } from 'vitest';
import { createFrameQueue, type FrameQueue, framesPerTurn } from '../../src/agent-gateway/frame-queue.ts';

let done: string[];
let isPaused: boolean;
beforeEach(() => {
  done = [];
  isPaused = false;
});

function queueOf(work: (frame: string) => Promise<void> | null = () => null): FrameQueue<string> {
  const socket = {
    pause() {
      isPaused = true;
    },
    resume() {
      isPaused = false;
    },
  };
  return createFrameQueue<string>(
    socket,
    (frame) => {
      done.push(frame);
      return work(frame);
    },
    { error: () => void done.push('error') },
  );
}

function frames(name: string, count: number): string[] {
  return Array.from({ length: count }, (_none, index) => `${name}${index}`);
}

describe('a queue of frames', () => {
  it('works on them at once while they are few', () => {
    const queue = queueOf();
    for (const frame of frames('a', framesPerTurn)) queue.push(frame);
    expect(done).toEqual(frames('a', framesPerTurn));
    expect(isPaused).toBe(false);
  });

  it('lets others have their turn where they are many, reads no more meanwhile, and keeps their order', async () => {
    const [flood, quiet] = [queueOf(), queueOf()];
    const many = frames('flood', 10 * framesPerTurn);
    for (const frame of many) flood.push(frame);
    expect(isPaused).toBe(true);
    quiet.push('quiet');
    expect(done.indexOf('quiet')).toBe(framesPerTurn);
    for (let turn = 0; turn < 11; turn++) await nextTurn();
    expect(done.filter((frame) => frame !== 'quiet')).toEqual(many);
    expect(isPaused).toBe(false);
  });

  it('works on no more in a turn, however it is asked', async () => {
    const flood = queueOf();
    for (const frame of frames('a', 3 * framesPerTurn)) flood.push(frame);
    for (let turn = 1; turn <= 3; turn++) {
      expect(done).toHaveLength(turn * framesPerTurn);
      await nextTurn();
    }
  });

  it('works on all that is left as soon as the socket is gone', () => {
    const queue = queueOf();
    for (const frame of frames('a', 5 * framesPerTurn)) queue.push(frame);
    queue.end();
    expect(done).toEqual(frames('a', 5 * framesPerTurn));
  });

  it('waits for a frame that takes time, and goes on where one fails', async () => {
    let finish = () => {};
    const queue = queueOf((frame) => {
      if (frame === 'fails') throw new Error('broken');
      if (frame !== 'slow') return null;
      return new Promise((resolve) => {
        finish = resolve;
      });
    });
    for (const frame of ['fast', 'slow', 'fails', 'last']) queue.push(frame);
    expect(done).toEqual(['fast', 'slow']);
    expect(isPaused).toBe(true);
    finish();
    await nextTurn();
    expect(done).toEqual(['fast', 'slow', 'fails', 'error', 'last']);
    expect(isPaused).toBe(false);
  });
});
