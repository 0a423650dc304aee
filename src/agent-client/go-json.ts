/**
 * JSON as Go's encoding/json writes it, which is what deployed agents put on the wire: the keys of a map in the order of
 * their UTF-8 bytes, `<`, `>`, `&`, U+2028 and U+2029 escaped, no white space.
 */

export type JsonValue = string | number | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue };

const beyondBasicPlane = /[\ud800-\udfff]/;
const loneSurrogate = /\p{Surrogate}/gu;
const escapedByGo = /[<>&\u2028\u2029]/g;

/** Writes a value as Go marshals maps, slices, strings and numbers. Throws a TypeError for a number that is not finite. */
export function encodeGoJson(value: JsonValue): string {
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'string') return encodeGoString(value);
  if (typeof value === 'number') return encodeGoNumber(value);
  if (isJsonArray(value)) return `[${value.map(encodeGoJson).join(',')}]`;
  return encodeGoStruct(Object.entries(value).sort(byUtf8Key));
}

/** Writes an object with its fields in the order given, as Go marshals a struct. */
export function encodeGoStruct(fields: readonly (readonly [name: string, value: JsonValue])[]): string {
  return `{${fields.map(([name, value]) => `${encodeGoString(name)}:${encodeGoJson(value)}`).join(',')}}`;
}

function encodeGoString(text: string): string {
  // A Go string has no lone surrogates: what comes from JSON with one holds U+FFFD in its place.
  const wellFormed = beyondBasicPlane.test(text) ? text.replace(loneSurrogate, '\ufffd') : text;
  return JSON.stringify(wellFormed).replace(
    escapedByGo,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

function encodeGoNumber(value: number): string {
  if (!Number.isFinite(value)) throw new TypeError(`JSON has no ${value}`);
  return Object.is(value, -0) ? '-0' : String(value);
}

/** Orders by UTF-8 bytes. JavaScript compares UTF-16 units, which differs only where surrogates are involved. */
function byUtf8Key([left]: readonly [string, JsonValue], [right]: readonly [string, JsonValue]): number {
  if (beyondBasicPlane.test(left) || beyondBasicPlane.test(right)) {
    return Buffer.compare(Buffer.from(left), Buffer.from(right));
  }
  return left < right ? -1 : 1;
}

function isJsonArray(value: JsonValue): value is readonly JsonValue[] {
  return Array.isArray(value);
}
