import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { AegisError, type ErrorCode, errorCatalogue } from '../src/errors.ts';

const documentText = readFileSync(new URL('../docs/ERRORS.md', import.meta.url), 'utf8');

interface DocumentedError {
  readonly code: string;
  readonly text: string;
  readonly httpStatus: string;
  readonly closeCode: string;
  readonly retryable: string;
  readonly met: string;
}

/** Rows of the tables of codes, in the order of the page. Other tables have no code in their first cell. */
function documentedErrors(markdown: string): DocumentedError[] {
  return markdown.split('\n').flatMap((line) => {
    const cells = /^\| `[A-Z0-9_]+` \|/.test(line) ? line.slice(2, -2).split(' | ') : [];
    const [code, text, httpStatus, closeCode, retryable, met, ...tooMany] = cells;
    if (code === undefined) return [];
    if (text === undefined || httpStatus === undefined || closeCode === undefined)
      throw new Error(`short row: ${line}`);
    if (retryable === undefined || met === undefined || tooMany.length > 0) throw new Error(`not six cells: ${line}`);
    return [{ code: code.slice(1, -1), text, httpStatus, closeCode, retryable, met }];
  });
}

/** What the page must say of a code, but for where it is met. */
function expectedRow(code: ErrorCode): Omit<DocumentedError, 'met'> {
  const entry: { text: string; httpStatus: number; closeCode?: number; retryable: boolean } = errorCatalogue[code];
  return {
    code,
    text: entry.text,
    httpStatus: String(entry.httpStatus),
    closeCode: entry.closeCode === undefined ? '–' : String(entry.closeCode),
    retryable: entry.retryable ? 'yes' : 'no',
  };
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorCatalogue, code);
}

const codes = Object.keys(errorCatalogue).filter(isErrorCode);
const documented = documentedErrors(documentText);

describe('docs/ERRORS.md and the catalogue', () => {
  it('name the same codes, in the same order, each once', () => {
    expect(documented.map(({ code }) => code)).toEqual(codes);
  });

  it.each(codes)('say the same of %s', (code) => {
    const { met, ...row } = documented.find((candidate) => candidate.code === code) ?? { met: '' };
    expect(row).toEqual(expectedRow(code));
    expect(met).not.toBe('');
  });
});

describe('the catalogue', () => {
  it.each(codes)('gives %s what every protocol can carry', (code) => {
    const { text, httpStatus, closeCode } = expectedRow(code);
    expect(Number(httpStatus)).toBeGreaterThanOrEqual(400);
    expect(Number(httpStatus)).toBeLessThan(600);
    // RFC 6455, section 5.5.1: a close reason has at most 123 bytes; section 7.4.2: 4000 to 4999 are private.
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(123);
    expect(closeCode === '–' || /^(1007|1009|1012|1013|4\d{3})$/.test(closeCode)).toBe(true);
    // What would break a header, a log line or a row of the page.
    expect(text).not.toMatch(/[\p{Control}|]/u);
  });
});

describe('an AegisError', () => {
  it('carries the text and status of its code', () => {
    const error = new AegisError('QUEUE_FULL');
    expect(error).toMatchObject({
      code: 'QUEUE_FULL',
      message: 'Too many messages wait for this agent',
      httpStatus: 429,
    });
  });

  it('says more where it is given a detail', () => {
    expect(new AegisError('NOT_FOUND', 'Invalid path')).toMatchObject({ message: 'Invalid path', httpStatus: 404 });
  });
});
