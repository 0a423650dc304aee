import { createHash } from 'node:crypto';

/** Lower-case hex SHA-256 of the raw public key: how a key is named to people. `publicKey` is standard base64. */
export function keyFingerprint(publicKey: string): string {
  return createHash('sha256').update(publicKey, 'base64').digest('hex');
}

/** How a secret token is stored. Tokens have 256 random bits, so a plain hash is enough. */
export function tokenHash(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}
