import { createHash, timingSafeEqual } from 'node:crypto';
import { adminToken, type Consumer } from './consumer.ts';

/**
 * Tells who a consumer is from its `Authorization` header; null where the credentials are missing or wrong. Gives a promise
 * only where something has to be asked. Throws UNAVAILABLE where what knows the credentials does not answer.
 */
export type Authenticate = (authorization: string | null | undefined) => Consumer | null | Promise<Consumer | null>;

/** Knows some bearer tokens. Undefined: none of those that it knows about. */
export type TokenReader = (token: string) => Consumer | null | Promise<Consumer | null> | undefined;

/** Longer ones are nobody's: what is shown is hashed and parsed before anything is known of who shows it. */
const maxTokenCharacters = 8_192;

/** Authentication by bearer tokens: `ADMIN_TOKEN` where there is one, and what the readers know, asked in order. */
export function createAuthenticate(expectedToken: string | null, readers: readonly TokenReader[] = []): Authenticate {
  const expected = expectedToken === null ? null : digest(expectedToken);
  return (authorization) => {
    const token = bearerToken(authorization);
    if (token === null || token.length > maxTokenCharacters) return null;
    // Digests first: timingSafeEqual throws where lengths differ.
    if (expected !== null && timingSafeEqual(digest(token), expected)) return adminToken;
    for (const read of readers) {
      const known = read(token);
      if (known !== undefined) return known;
    }
    return null;
  };
}

/** The token of `Bearer <token>` (RFC 6750, section 2.1; the scheme without regard to case), or null. */
function bearerToken(authorization: string | null | undefined): string | null {
  return /^bearer +([\w.~+/-]+=*)$/i.exec(authorization ?? '')?.[1] ?? null;
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
