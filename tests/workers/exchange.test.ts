import { describe, expect, it } from 'vitest';
import { createExchange } from '../../src/workers/exchange.ts';
import type { ToWorker } from '../../src/workers/talk.ts';

/** Whoever joins keeps what it is told; time passes when the test says so. */
function stage() {
  const timers = new Set<() => void>();
  const exchange = createExchange({
    now: () => 0,
    every: () => () => {},
    after(_delayMs, task) {
      timers.add(task);
      return () => timers.delete(task);
    },
  });
  return {
    exchange,
    join() {
      const heard: ToWorker[] = [];
      const member = {
        heard,
        send(message: ToWorker) {
          heard.push(message);
        },
      };
      return { member, heard, leave: exchange.join(member) };
    },
    passTime() {
      for (const task of timers) task();
    },
    get timers() {
      return timers.size;
    },
  };
}

describe('an exchange between workers', () => {
  it('passes on what one tells to all others, in order, and not to itself', () => {
    const { exchange, join } = stage();
    const [one, two, three] = [join(), join(), join()];
    exchange.take(one.member, { say: 'tell', about: 'bus', text: 'first' });
    exchange.take(one.member, { say: 'tell', about: 'anything', text: 'second' });
    expect(one.heard).toEqual([]);
    for (const { heard } of [two, three])
      expect(heard).toEqual([
        { say: 'told', about: 'bus', text: 'first' },
        { say: 'told', about: 'anything', text: 'second' },
      ]);
  });

  it('gathers what all report, the one who asks among them, and answers once', () => {
    const { exchange, join } = stage();
    const [one, two] = [join(), join()];
    exchange.take(one.member, { say: 'gather', id: 7 });
    exchange.take(two.member, { say: 'gather', id: 7 });
    const questions = one.heard.flatMap((message) => (message.say === 'report' ? [message.id] : []));
    expect(questions).toHaveLength(2);
    for (const [index, id] of questions.entries()) {
      exchange.take(two.member, { say: 'reported', id, text: `two ${index}` });
      exchange.take(one.member, { say: 'reported', id, text: `one ${index}` });
      exchange.take(one.member, { say: 'reported', id, text: 'again' });
    }
    expect(one.heard.at(-1)).toEqual({ say: 'reports', id: 7, texts: ['two 0', 'one 0'] });
    expect(two.heard.at(-1)).toEqual({ say: 'reports', id: 7, texts: ['two 1', 'one 1'] });
  });

  it('answers without those that leave or say nothing', () => {
    const current = stage();
    const { exchange, join } = current;
    const [one, two, three] = [join(), join(), join()];
    exchange.take(one.member, { say: 'gather', id: 1 });
    exchange.take(one.member, { say: 'reported', id: 1, text: 'one' });
    two.leave();
    expect(one.heard.at(-1)).toEqual({ say: 'report', id: 1 });
    three.leave();
    expect(one.heard.at(-1)).toEqual({ say: 'reports', id: 1, texts: ['one'] });
    expect(current.timers).toBe(0);

    const four = join();
    exchange.take(four.member, { say: 'gather', id: 1 });
    exchange.take(four.member, { say: 'reported', id: 2, text: 'four' });
    current.passTime();
    expect(four.heard.at(-1)).toEqual({ say: 'reports', id: 1, texts: ['four'] });
  });
});
