/**
 * What of JSON (RFC 8259) is taken from callers: less than the grammar allows, so that everything behind the edge can
 * walk, store and print it without a second thought.
 */

/** How deep arrays and objects may nest in a value that a body carries, such as a message. */
export const maxValueDepth = 32;

/** How deep a body may nest: a value of `maxValueDepth` within the object that carries it. */
export const maxBodyDepth = maxValueDepth + 1;

/** Why a text was not taken. */
export type JsonFault =
  | 'not-json'
  | 'too-deep'
  /** NUL or half of a surrogate pair: Postgres stores neither in `text` or `jsonb`. */
  | 'unstorable-text'
  /** `__proto__` as a key: `Object.assign` and the like would set the prototype of a copy. */
  | 'forbidden-key';

export type SoundJson =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly fault: JsonFault };

/**
 * Parses JSON that nests at most `maxBodyDepth` deep and whose strings and keys can be stored.
 * Never throws, and refuses what is too deep before any of it is built.
 */
export function parseSoundJson(text: string): SoundJson {
  if (nestsDeeperThan(text, maxBodyDepth)) return { ok: false, fault: 'too-deep' };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { ok: false, fault: 'not-json' };
  }
  const fault = faultIn(value);
  return fault === null ? { ok: true, value } : { ok: false, fault };
}

const quote = 0x22;
const backslash = 0x5c;
const opening = new Set([0x5b, 0x7b]);
const closing = new Set([0x5d, 0x7d]);

/** Whether brackets outside strings ever nest deeper than this. Says nothing of whether the text is JSON. */
function nestsDeeperThan(text: string, maxDepth: number): boolean {
  let depth = 0;
  let inString = false;
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index);
    if (inString) {
      if (unit === backslash) index++;
      else if (unit === quote) inString = false;
    } else if (unit === quote) inString = true;
    else if (closing.has(unit)) depth--;
    else if (opening.has(unit) && ++depth > maxDepth) return true;
  }
  return false;
}

/** The first fault of a parsed value; recursion is bounded by `maxBodyDepth`. */
function faultIn(value: unknown): JsonFault | null {
  if (typeof value === 'string') return isStorableText(value) ? null : 'unstorable-text';
  if (typeof value !== 'object' || value === null) return null;
  for (const [key, child] of Object.entries(value)) {
    if (key === '__proto__') return 'forbidden-key';
    const fault = isStorableText(key) ? faultIn(child) : 'unstorable-text';
    if (fault !== null) return fault;
  }
  return null;
}

/** Whether Postgres can store a text: no NUL, no half of a surrogate pair. */
export function isStorableText(text: string): boolean {
  return !/[\0\p{Surrogate}]/u.test(text);
}
