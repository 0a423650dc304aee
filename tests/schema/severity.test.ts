import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Severity, severities } from '../../src/events/event.ts';
import { severityOf } from '../../src/events/severity.ts';

const understood: Record<Severity, unknown[]> = {
  unknown: [
    'unknown',
    '',
    'purple',
    'highest',
    null,
    undefined,
    true,
    {},
    [],
    ['high'],
    -1,
    10.1,
    Number.NaN,
    '11',
    '-1',
  ],
  info: ['info', 'Informational', 'notice', 'DEBUG', 'none', 0, '0', '0.0'],
  low: ['low', ' Low ', 'minor', 0.1, 3.9, '2'],
  medium: ['medium', 'MED', 'moderate', 'warn', 'Warning', 4, 6.9, '5.5'],
  high: ['high', 'HIGH', 'major', 'error', 'err', 7, 8.9, '8'],
  critical: ['critical', 'Crit', 'fatal', 'emergency', 'alert', 'severe', 'very_high', 'Very High', 9, 10, '10'],
};

describe('severityOf', () => {
  for (const severity of severities) {
    for (const value of understood[severity]) {
      test(`reads ${JSON.stringify(value)} as ${severity}`, () => {
        expect(severityOf(value)).toBe(severity);
      });
    }
  }

  test('knows every severity by its own name, in any case', () => {
    for (const severity of severities) {
      expect(severityOf(severity)).toBe(severity);
      expect(severityOf(severity.toUpperCase())).toBe(severity);
    }
  });

  test('takes no word for one that is longer than any', () => {
    expect(severityOf(`high${' '.repeat(60)}`)).toBe('high');
    expect(severityOf(`high${' '.repeat(61)}`)).toBe('unknown');
  });

  test('gives one of the severities for any JSON value', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(severities).toContain(severityOf(value));
      }),
    );
  });
});
