/** Bytes as protocol v2 joins, counts and writes them; without Node's Buffer, so that agents elsewhere can use it. */

const encoder = new TextEncoder();
/** A byte order mark is a character like any other here: no two byte sequences may read as the same text. */
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}

/** Null for what is not UTF-8. */
export function decodeUtf8(bytes: Uint8Array): string | null {
  try {
    return decoder.decode(bytes);
  } catch {
    return null;
  }
}

export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}

/** Four bytes of length, big endian, then the content. */
export function lengthPrefixed(content: Uint8Array): Uint8Array {
  const prefixed = new Uint8Array(4 + content.length);
  new DataView(prefixed.buffer).setUint32(0, content.length);
  prefixed.set(content, 4);
  return prefixed;
}

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const sextets = new Map([...alphabet].map((character, sextet) => [character.charCodeAt(0), sextet]));

/** Base64url without padding (RFC 4648, section 5). */
export function encodeBase64Url(bytes: Uint8Array): string {
  let text = '';
  for (let offset = 0; offset < bytes.length; offset += 3) {
    const [first = 0, second = 0, third = 0] = bytes.subarray(offset, offset + 3);
    const bits = (first << 16) | (second << 8) | third;
    const characters = Math.min(bytes.length - offset, 3) + 1;
    for (let index = 0; index < characters; index++) text += alphabet.charAt((bits >> (18 - 6 * index)) & 0x3f);
  }
  return text;
}

/** Null for anything that `encodeBase64Url` does not write: padding, other characters, and aliases with bits left over. */
export function decodeBase64Url(text: string): Uint8Array | null {
  if (text.length % 4 === 1) return null;
  const bytes = new Uint8Array(Math.floor((text.length * 3) / 4));
  let bits = 0;
  let bitCount = 0;
  let offset = 0;
  for (let index = 0; index < text.length; index++) {
    const sextet = sextets.get(text.charCodeAt(index));
    if (sextet === undefined) return null;
    bits = ((bits << 6) | sextet) & 0xffff;
    bitCount += 6;
    if (bitCount >= 8) {
      bitCount -= 8;
      bytes[offset++] = bits >> bitCount;
    }
  }
  return (bits & ((1 << bitCount) - 1)) === 0 ? bytes : null;
}
