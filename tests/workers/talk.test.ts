import { describe, expect, it } from 'vitest';
import { restartDelayMs } from '../../src/workers/restart-delay.ts';
import { createSend, readToPrimary, readToWorker } from '../../src/workers/talk.ts';

describe('what workers and their primary say', () => {
  it('is passed over where it is not known: the other side may be newer', () => {
    expect(readToWorker({ say: 'retire', how: 'a field of a newer build' })).toEqual({ say: 'retire' });
    expect(readToWorker({ say: 'dance' })).toBeNull();
    expect(readToPrimary({ say: 'reported', id: 'one' })).toBeNull();
    expect(readToPrimary('ready')).toBeNull();
  });

  it('is dropped beyond 16 MiB of texts on their way, and never where it is an order', () => {
    const under: (() => void)[] = [];
    const written: string[] = [];
    const lost: (string | undefined)[] = [];
    const write = createSend<{ say: string; text?: string }>((message, sent) => {
      written.push(message.say);
      under.push(() => sent(null));
    });
    const send = (message: { say: string; text?: string }) =>
      write(message, (error) => error && lost.push(message.say));
    const text = 'x'.repeat(8 * 1024 * 1024);
    for (const say of ['one', 'two', 'three']) send({ say, text });
    send({ say: 'stop' });
    under[0]?.();
    send({ say: 'four', text });
    expect(lost).toEqual(['three']);
    expect(written).toEqual(['one', 'two', 'stop', 'four']);
  });
});

describe('the delay before a restart', () => {
  it('doubles from a quarter of a second to fifteen, a half more or less', () => {
    const delays = (random: number) => [0, 1, 2, 5, 6, 40].map((failures) => restartDelayMs(failures, () => random));
    expect(delays(0)).toEqual([125, 250, 500, 4_000, 7_500, 7_500]);
    expect(delays(0.5)).toEqual([250, 500, 1_000, 8_000, 15_000, 15_000]);
  });
});
