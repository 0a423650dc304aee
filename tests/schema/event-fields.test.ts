import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { anomalyFields, processFields, threatFields } from '../../src/events/fields.ts';

describe('the fields of an anomaly', () => {
  test('are read as deployed agents write them', () => {
    const payload = {
      id: 'an-1',
      message: 'beacon',
      metadata: { interval_s: 60 },
      severity: 'high',
      type: 'beaconing',
    };
    expect(anomalyFields(payload)).toEqual({ type: 'beaconing', message: 'beacon' });
  });

  test('are null where they are missing or of another type', () => {
    expect(anomalyFields({})).toEqual({ type: null, message: null });
    expect(anomalyFields({ type: true, message: ['a'] })).toEqual({ type: null, message: null });
    expect(anomalyFields('not an object')).toEqual({ type: null, message: null });
    expect(anomalyFields(null)).toEqual({ type: null, message: null });
  });

  test('show a number in its digits', () => {
    expect(anomalyFields({ type: 17, message: 0.5 })).toEqual({ type: '17', message: '0.5' });
  });

  test('are never taken from a prototype', () => {
    expect(anomalyFields(Object.create({ type: 'inherited' }))).toEqual({ type: null, message: null });
    expect(anomalyFields(JSON.parse('{"__proto__":{"type":"x"}}'))).toEqual({ type: null, message: null });
  });
});

describe('the fields of a threat', () => {
  test('are read as deployed agents write them', () => {
    const indicator = {
      confidence: 0.97,
      id: 'i1',
      severity: 'critical',
      source: 'feed-a',
      type: 'ip',
      value: '203.0.113.7',
    };
    const payload = { description: 'C2', indicators: [indicator], response: 'blocked', source: 'feed-a', type: 'c2' };
    expect(threatFields(payload)).toEqual({
      type: 'c2',
      description: 'C2',
      source: 'feed-a',
      response: 'blocked',
      indicators: [{ type: 'ip', value: '203.0.113.7', confidence: 0.97, severity: 'critical', source: 'feed-a' }],
    });
  });

  test('have no indicators where the list is none', () => {
    for (const indicators of [undefined, null, 'x', { length: 2 }])
      expect(threatFields({ indicators }).indicators).toEqual([]);
  });

  test('take an indicator that is a bare value, and leave out one that is null', () => {
    const { indicators } = threatFields({ indicators: ['203.0.113.7', null, {}] });
    expect(indicators.map(({ value, severity }) => [value, severity])).toEqual([
      ['203.0.113.7', 'unknown'],
      [null, 'unknown'],
    ]);
  });

  test('read a confidence that is written as text, and none that is not a finite number', () => {
    const confidenceOf = (confidence: unknown) =>
      threatFields({ indicators: [{ confidence }] }).indicators[0]?.confidence;
    expect(confidenceOf('0.9')).toBe(0.9);
    expect(confidenceOf(' 90 ')).toBe(90);
    for (const confidence of ['high', '', '0x10', 'Infinity', '1e999', JSON.parse('1e999'), true, null])
      expect(confidenceOf(confidence)).toBeNull();
  });
});

describe('the fields of a process event', () => {
  test('are read as deployed agents write them', () => {
    const payload = {
      action: 'exec',
      cmdline: 'curl x',
      name: 'curl',
      path: '/usr/bin/curl',
      pid: 4242,
      ppid: 1,
      user: 'www',
    };
    expect(processFields(payload)).toEqual({
      action: 'exec',
      pid: 4242,
      name: 'curl',
      path: '/usr/bin/curl',
      user: 'www',
    });
  });

  test('read a pid from digits', () => {
    expect(processFields({ pid: '4242' }).pid).toBe(4242);
    expect(processFields({ pid: 0 }).pid).toBe(0);
  });

  test('have no pid where GraphQL could not carry it', () => {
    expect(processFields({ pid: 2 ** 31 - 1 }).pid).toBe(2 ** 31 - 1);
    for (const pid of [2 ** 31, -(2 ** 31) - 1, '4294967296', 1.5, 'init', null, {}])
      expect(processFields({ pid }).pid).toBeNull();
  });
});

test('no JSON value makes the fields throw, and every field is text, a finite number or null', () => {
  const payload = fc.oneof(
    fc.jsonValue(),
    fc.record(
      Object.fromEntries(
        ['type', 'message', 'source', 'indicators', 'pid', 'user', 'confidence'].map((key) => [key, fc.jsonValue()]),
      ),
      { requiredKeys: [] },
    ),
    fc.record({
      indicators: fc.array(fc.dictionary(fc.constantFrom('type', 'confidence', 'severity'), fc.jsonValue())),
    }),
  );
  fc.assert(
    fc.property(payload, (value) => {
      const { indicators, ...threat } = threatFields(value);
      const process = processFields(value);
      const fields = [anomalyFields(value), threat, process, ...indicators].flatMap((group) => Object.values(group));
      for (const field of fields)
        expect(field === null || typeof field === 'string' || Number.isFinite(field)).toBe(true);
      if (process.pid !== null) expect(process.pid).toBe(Math.trunc(process.pid));
    }),
  );
});
