import { maxJsonDepth } from './text.ts';

/**
 * The payloads of a batch as they were written, so that no number in them loses digits on its way; undefined for a message
 * without one. Null where anything nests deeper than `maxJsonDepth`. Reads the text of a JSON array of objects, which
 * `JSON.parse` must have taken already: faults of syntax are not looked for.
 */
export function scanPayloads(json: string): (string | undefined)[] | null {
  const payloads: (string | undefined)[] = [];
  for (let start = json.indexOf('{'); start >= 0; ) {
    const message = scanMessage(json, start + 1);
    if (!message) return null;
    payloads.push(message.payload);
    start = json.indexOf('{', message.end);
  }
  return payloads;
}

/** The payload, and the place of the brace that ends the message. Of several payloads the last one counts, as in `JSON.parse`. */
function scanMessage(json: string, start: number): { payload: string | undefined; end: number } | null {
  let payload: string | undefined;
  let end = skipSpace(json, start);
  while (json.charCodeAt(end) !== closeBrace) {
    const keyStart = json.indexOf('"', end);
    const keyEnd = endOfString(json, keyStart);
    const valueStart = json.indexOf(':', keyEnd) + 1;
    end = endOfValue(json, valueStart);
    if (end < 0) return null;
    if (isPayloadKey(json.slice(keyStart, keyEnd + 1))) payload = json.slice(valueStart, end).trim();
  }
  return { payload, end };
}

/** The place of the comma, brace or bracket behind a value; -1 where it nests too deeply. */
function endOfValue(json: string, start: number): number {
  let depth = 0;
  for (let index = start; index < json.length; index++) {
    const code = json.charCodeAt(index);
    if (code === quote) {
      index = endOfString(json, index);
    } else if (code === openBrace || code === openBracket) {
      if (++depth > maxJsonDepth) return -1;
    } else if (code === closeBrace || code === closeBracket) {
      if (depth-- === 0) return index;
    } else if (code === comma && depth === 0) {
      return index;
    }
  }
  return json.length;
}

/** The place of the quotation mark that ends the string which begins at `start`. */
function endOfString(json: string, start: number): number {
  for (let end = json.indexOf('"', start + 1); end >= 0; end = json.indexOf('"', end + 1)) {
    let before = end - 1;
    while (json.charCodeAt(before) === backslash) before--;
    if ((end - before) % 2 === 1) return end;
  }
  return json.length;
}

function skipSpace(json: string, start: number): number {
  let index = start;
  while (json.charCodeAt(index) <= space) index++;
  return index;
}

/** The key may be written with escapes. */
function isPayloadKey(text: string): boolean {
  return text === '"payload"' || (text.includes('\\') && JSON.parse(text) === 'payload');
}

const space = 0x20;
const quote = 0x22;
const comma = 0x2c;
const backslash = 0x5c;
const openBracket = 0x5b;
const closeBracket = 0x5d;
const openBrace = 0x7b;
const closeBrace = 0x7d;
