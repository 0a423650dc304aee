/** Longest id, name or nonce that is taken, in UTF-16 code units. */
export const maxIdLength = 255;

/** Deepest nesting of JSON that is taken. V8 parses a million levels, but cannot write ten thousand. */
export const maxJsonDepth = 32;

/**
 * Whether a text can be an id or a name: 1 to 255 characters, none of them a control character (NUL among them, which
 * Postgres refuses) or half of a surrogate pair.
 */
export function isIdentifier(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    value.length > 0 &&
    value.length <= maxIdLength &&
    !/[\u0000-\u001f\u007f]/.test(value) &&
    isWellFormed(value)
  );
}

/** Whether every surrogate in the text has its other half. */
export function isWellFormed(text: string): boolean {
  return !/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(text);
}

/**
 * Whether JSON text can be kept in `jsonb`, which takes neither NUL nor half of a surrogate pair. Looks at text as
 * `JSON.stringify` writes it, where both only ever stand as escapes.
 */
export function isStorableJson(json: string): boolean {
  return isWellFormed(json) && !/(?<!\\)(?:\\\\)*\\u(?:0000|d[89ab][0-9a-f]{2}|d[c-f][0-9a-f]{2})/i.test(json);
}

/** The bytes of standard, padded, canonical base64, or null: Node's own decoder also takes aliases and garbage. */
export function decodeBase64(text: string): Buffer | null {
  const bytes = Buffer.from(text, 'base64');
  return bytes.toString('base64') === text ? bytes : null;
}

/** Whether JSON text nests deeper than `maxJsonDepth`, told without parsing it. */
export function isTooDeep(json: string): boolean {
  let depth = 0;
  let inString = false;
  for (let index = 0; index < json.length; index++) {
    const code = json.charCodeAt(index);
    if (inString) {
      if (code === backslash) index++;
      else if (code === quote) inString = false;
    } else if (code === quote) {
      inString = true;
    } else if (code === openBrace || code === openBracket) {
      if (++depth > maxJsonDepth) return true;
    } else if (code === closeBrace || code === closeBracket) {
      depth--;
    }
  }
  return false;
}

const quote = 0x22;
const backslash = 0x5c;
const openBracket = 0x5b;
const closeBracket = 0x5d;
const openBrace = 0x7b;
const closeBrace = 0x7d;
