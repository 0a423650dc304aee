import { describe, expect, it } from 'vitest';
import { Journal } from '../../src/agent-client/index.ts';

describe('a journal', () => {
  it('gives what came before the call', async () => {
    const journal = new Journal<number>('number', 10);
    journal.record(1);
    expect(await journal.next()).toBe(1);
  });

  it('gives what comes after the call', async () => {
    const journal = new Journal<number>('number', 10);
    const next = journal.next((number) => number > 1);
    journal.record(1);
    journal.record(2);
    expect(await next).toBe(2);
  });

  it('gives nothing twice, and keeps what nobody asked for', async () => {
    const journal = new Journal<number>('number', 10);
    for (const number of [1, 2, 3]) journal.record(number);
    expect(await journal.next((number) => number === 2)).toBe(2);
    expect(await journal.next()).toBe(1);
    expect(await journal.next()).toBe(3);
    expect(journal.entries).toEqual([1, 2, 3]);
  });

  it('serves those who wait in the order in which they came', async () => {
    const journal = new Journal<string>('word', 10);
    const both = Promise.all([journal.next(), journal.next()]);
    journal.record('first');
    journal.record('second');
    expect(await both).toEqual(['first', 'second']);
  });

  it('says what it waited for in vain', async () => {
    const journal = new Journal<number>('command to host-head', 10);
    journal.record(1);
    await expect(journal.next((number) => number > 1, { timeoutMs: 1 })).rejects.toThrow(
      'no such command to host-head within 1 ms; 1 came in all',
    );
  });

  it('keeps the last entries, twice its limit at most, and counts them all', () => {
    const journal = new Journal<number>('number', 3);
    for (let number = 1; number <= 100; number++) {
      journal.record(number);
      expect(journal.entries.length).toBeLessThanOrEqual(6);
      expect(journal.entries.slice(-3)).toEqual([number - 2, number - 1, number].filter((kept) => kept > 0));
    }
    expect(journal.count).toBe(100);
  });
});
