import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';

/**
 * What gateways that share a secret tell each other over a place that shall neither read nor forge it: AES-256-GCM, in base64,
 * under a key and a nonce of each text's own, which come from the secret and the salt in front.
 */

const algorithm = 'aes-256-gcm';
const purpose = 'aegis: bodies of events between gateways';
const saltBytes = 16;
const keyBytes = 32;
const nonceBytes = 12;
const tagBytes = 16;

export function sealBodies(text: string, secret: Uint8Array): string {
  const salt = randomBytes(saltBytes);
  const cipher = createCipheriv(algorithm, ...keyAndNonce(secret, salt));
  return Buffer.concat([salt, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]).toString('base64');
}

/** Null for what was not sealed with this secret. */
export function openBodies(sealed: string, secret: Uint8Array): string | null {
  const bytes = Buffer.from(sealed, 'base64');
  if (bytes.length < saltBytes + tagBytes) return null;
  const decipher = createDecipheriv(algorithm, ...keyAndNonce(secret, bytes.subarray(0, saltBytes)));
  decipher.setAuthTag(bytes.subarray(-tagBytes));
  const text = decipher.update(bytes.subarray(saltBytes, -tagBytes));
  try {
    decipher.final();
    return text.toString('utf8');
  } catch {
    return null;
  }
}

function keyAndNonce(secret: Uint8Array, salt: Uint8Array): [key: Buffer, nonce: Buffer] {
  const bytes = Buffer.from(hkdfSync('sha256', secret, salt, purpose, keyBytes + nonceBytes));
  return [bytes.subarray(0, keyBytes), bytes.subarray(keyBytes)];
}
