import { createHash, timingSafeEqual } from 'node:crypto';
import { everyOrganisation, type Scope } from './scope.ts';

/** Tells what a consumer may see from its `Authorization` header, or null where the credentials are missing or wrong. */
export type Authenticate = (authorization: string | null | undefined) => Scope | null;

/** Authentication by `ADMIN_TOKEN` as a bearer token. Without a token nobody is let in. */
export function createAuthenticate(adminToken: string | null): Authenticate {
  const expected = adminToken === null ? null : digest(adminToken);
  return (authorization) => {
    const token = bearerToken(authorization);
    if (expected === null || token === null) return null;
    // Digests first: timingSafeEqual throws where lengths differ.
    return timingSafeEqual(digest(token), expected) ? everyOrganisation : null;
  };
}

/** The token of `Bearer <token>` (RFC 6750, section 2.1; the scheme without regard to case), or null. */
function bearerToken(authorization: string | null | undefined): string | null {
  return /^bearer +([\w.~+/-]+=*)$/i.exec(authorization ?? '')?.[1] ?? null;
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
