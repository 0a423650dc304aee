import type { Severity } from './event.ts';

/** The words that detectors use, each with its severity. Words of loggers stand where an operator would put them. */
const words: ReadonlyMap<string, Severity> = new Map([
  ...wordsFor('info', 'info', 'information', 'informational', 'notice', 'debug', 'trace', 'verbose', 'none', 'ok'),
  ...wordsFor('low', 'low', 'minor'),
  ...wordsFor('medium', 'medium', 'med', 'moderate', 'warn', 'warning'),
  ...wordsFor('high', 'high', 'major', 'important', 'error', 'err'),
  ...wordsFor('critical', 'critical', 'crit', 'severe', 'fatal', 'emergency', 'emerg', 'alert', 'panic', 'very high'),
]);

/** Longer than any word or number above, white space included. */
const maxTextLength = 64;

/**
 * The severity that an agent means: a word in any case, or a score from 0 to 10, as a number or in digits.
 * `unknown` for anything else; never throws.
 */
export function severityOf(value: unknown): Severity {
  if (typeof value === 'number') return severityOfScore(value);
  if (typeof value !== 'string' || value.length > maxTextLength) return 'unknown';
  const word = value
    .trim()
    .toLowerCase()
    .replace(/[\s_-]+/g, ' ');
  return words.get(word) ?? (/^\d+(\.\d+)?$/.test(word) ? severityOfScore(Number(word)) : 'unknown');
}

/** The bands of CVSS v3.1, section 5. */
function severityOfScore(score: number): Severity {
  if (!(score >= 0 && score <= 10)) return 'unknown';
  if (score === 0) return 'info';
  if (score < 4) return 'low';
  if (score < 7) return 'medium';
  return score < 9 ? 'high' : 'critical';
}

function wordsFor(severity: Severity, ...synonyms: string[]): [string, Severity][] {
  return synonyms.map((word) => [word, severity]);
}
