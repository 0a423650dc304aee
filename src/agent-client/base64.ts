/** Base64 on the agents' wire: standard alphabet, padded (agent-wire: "Common to both"). */

const standardPadded = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** Writes bytes, or the UTF-8 bytes of a text. */
export function encodeBase64(content: Uint8Array | string): string {
  if (typeof content === 'string') return Buffer.from(content, 'utf8').toString('base64');
  return Buffer.from(content.buffer, content.byteOffset, content.byteLength).toString('base64');
}

/** Reads standard padded base64; null for anything else. */
export function decodeBase64(text: string): Uint8Array | null {
  return standardPadded.test(text) ? Buffer.from(text, 'base64') : null;
}
