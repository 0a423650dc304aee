import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isStorableText, maxBodyDepth, parseSoundJson } from '../../src/rest/sound-json.ts';

function nested(depth: number, open: string, close: string, middle = ''): string {
  return open.repeat(depth) + middle + close.repeat(depth);
}

/** JSON values that are sound: no NUL, no lone surrogates, no `__proto__`, not deep. */
const soundText = fc.string({ unit: 'grapheme' }).filter(isStorableText);
const soundKey = soundText.filter((key) => key !== '__proto__');
const soundValue = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constant(null),
    fc.boolean(),
    fc.integer(),
    soundText,
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(soundKey, tie('value'), { maxKeys: 4, noNullPrototype: true }),
  ),
})).value;

describe('parseSoundJson', () => {
  it('gives back every sound value that JSON can write', () => {
    fc.assert(
      fc.property(soundValue, fc.constantFrom(undefined, 2), (value, indent) => {
        expect(parseSoundJson(JSON.stringify(value, null, indent))).toEqual({ ok: true, value });
      }),
    );
  });

  it('never throws, and takes nothing that JSON.parse does not', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const parsed = parseSoundJson(text);
        if (parsed.ok) expect(parsed.value).toEqual(JSON.parse(text));
      }),
    );
  });

  it.each([
    ['arrays', '[', ']', ''],
    ['objects', '{"a":', '}', '0'],
  ])('takes %s that nest as deep as is allowed, and none deeper', (_name, open, close, middle) => {
    expect(parseSoundJson(nested(maxBodyDepth, open, close, middle)).ok).toBe(true);
    expect(parseSoundJson(nested(maxBodyDepth + 1, open, close, middle))).toEqual({ ok: false, fault: 'too-deep' });
  });

  it('refuses a million nested arrays without building them', () => {
    expect(parseSoundJson(nested(1_000_000, '[', ']'))).toEqual({ ok: false, fault: 'too-deep' });
  });

  it('does not count brackets in strings, nor ones that follow an escaped quote', () => {
    const brackets = '['.repeat(100);
    for (const text of [brackets, `\\${brackets}`, `"${brackets}`, `\\"${brackets}"\\`])
      expect(parseSoundJson(JSON.stringify({ [text]: text }))).toEqual({ ok: true, value: { [text]: text } });
  });

  it('does not let closed siblings add up', () => {
    expect(parseSoundJson(`[${new Array(100).fill('[[]]').join(',')}]`).ok).toBe(true);
  });

  it.each(['', ' ', '{', '[1,]', "{'a':1}", 'undefined', 'NaN', '{"a":1}}', '\ufeff{}'])(
    'tells that %j is not JSON',
    (text) => {
      expect(parseSoundJson(text)).toEqual({ ok: false, fault: 'not-json' });
    },
  );

  it.each([
    ['NUL', '\\u0000'],
    ['the first half of a pair', '\\ud83d'],
    ['the second half of a pair', '\\ude00'],
    ['a pair the wrong way round', '\\ude00\\ud83d'],
  ])('refuses %s in values and in keys, however deep', (_name, escaped) => {
    for (const text of [`"${escaped}"`, `{"${escaped}":1}`, `[[{"a":["b${escaped}"]}]]`, `{"a":{"x${escaped}":null}}`])
      expect(parseSoundJson(text)).toEqual({ ok: false, fault: 'unstorable-text' });
  });

  it('takes whole pairs and other control characters', () => {
    expect(parseSoundJson('"\\ud83d\\ude00\\u0001\\n"')).toEqual({ ok: true, value: '😀\u0001\n' });
  });

  it('refuses __proto__ as a key, however written, and takes it as a value', () => {
    for (const text of ['{"__proto__":{}}', '[{"a":{"__proto__":1}}]', '{"\\u005f_proto__":{}}'])
      expect(parseSoundJson(text)).toEqual({ ok: false, fault: 'forbidden-key' });
    expect(parseSoundJson('{"a":"__proto__"}').ok).toBe(true);
  });
});
