import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { errors, type JWTPayload, type JWTVerifyGetKey, type JWTVerifyOptions, jwtVerify } from 'jose';
import { z } from 'zod';
import type { Clock } from '../clock.ts';
import type { TokenReader } from './authenticate.ts';
import { type Consumer, isPermission } from './consumer.ts';
import { createKeySet } from './key-set.ts';
import { createRemembered } from './remembered.ts';

/** Whose tokens are believed. */
export interface TokenIssuer {
  readonly issuer: string;
  readonly audience: string;
  readonly algorithms: readonly string[];
  /** A PEM file with the one key, or where the issuer publishes its keys. */
  readonly keys: { readonly publicKeyPath: string } | { readonly jwksUrl: string };
}

/** The file of the key cannot be used. The text names the file and never what is in it. */
export class TokenKeyError extends Error {
  constructor(reason: string, options?: ErrorOptions) {
    super(reason, options);
    this.name = 'TokenKeyError';
  }
}

/** How far the issuer's clock may be from ours. */
export const leewaySeconds = 60;

const claimsSchema = z.object({
  sub: z.string().max(255).optional(),
  exp: z.number(),
  org_id: z.string().min(1).max(255).optional(),
  all_organisations: z.boolean().optional(),
  scope: z.string().optional(),
});

/**
 * Knows JSON Web Tokens (RFC 7519) of one issuer: signed with an algorithm of the list, for this audience, in their time. Throws
 * a TokenKeyError where there is no key to begin with.
 */
export function createTokenReader(
  issuer: TokenIssuer,
  deps: { readonly clock: Clock; readonly logError: (error: unknown, context: string) => void },
): TokenReader {
  const { clock } = deps;
  const remembered = createRemembered(clock);
  const verify = verifierOf(issuer, deps);

  async function find(token: string): Promise<Consumer | null> {
    const now = new Date(clock.now());
    try {
      const payload = await verify(token, {
        issuer: issuer.issuer,
        audience: issuer.audience,
        algorithms: [...issuer.algorithms],
        clockTolerance: leewaySeconds,
        requiredClaims: ['exp'],
        currentDate: now,
      });
      return consumerOf(payload, now);
    } catch (error) {
      // Every fault of a token is one of these; what else goes wrong is ours.
      if (error instanceof errors.JOSEError || error instanceof TypeError) return null;
      throw error;
    }
  }

  return (token) => {
    if (!/^[\w-]+\.[\w-]+\.[\w-]*$/.test(token)) return undefined;
    return remembered.get(createHash('sha256').update(token).digest('base64'), () => find(token));
  };
}

type Verify = (token: string, options: JWTVerifyOptions) => Promise<JWTPayload>;

function verifierOf({ keys }: TokenIssuer, deps: Parameters<typeof createTokenReader>[1]): Verify {
  if ('publicKeyPath' in keys) {
    const key = publicKeyIn(keys.publicKeyPath);
    return async (token, options) => (await jwtVerify(token, key, options)).payload;
  }
  const keySet: JWTVerifyGetKey = createKeySet(keys.jwksUrl, deps);
  return async (token, options) => (await jwtVerify(token, keySet, options)).payload;
}

function publicKeyIn(path: string): KeyObject {
  const pem = readFileSync(path, 'utf8');
  // node:crypto would take the public half of a private key without a word, and that has no business here.
  if (!/-----BEGIN (PUBLIC KEY|CERTIFICATE)-----/.test(pem)) throw new TokenKeyError(`${path} holds no PEM public key`);
  try {
    return createPublicKey(pem);
  } catch (error) {
    throw new TokenKeyError(`${path} holds no PEM public key`, { cause: error });
  }
}

/** Who the token speaks for; null where it names neither an organisation nor all of them. */
function consumerOf(payload: JWTPayload, now: Date): Consumer | null {
  const claims = claimsSchema.safeParse(payload);
  if (!claims.success) return null;
  const { sub = 'unnamed', exp, org_id, all_organisations, scope = '' } = claims.data;
  const orgId = all_organisations === true ? null : org_id;
  if (orgId === undefined) return null;
  // The leeway lets in whoever comes a little late; what was open before then ends on time.
  const isLate = exp * 1_000 <= now.getTime();
  const expiresAt = new Date((isLate ? exp + leewaySeconds : exp) * 1_000);
  const permissions = new Set(scope.split(' ').filter(isPermission));
  return { id: sub, kind: 'jwt', label: sub, orgId, permissions, expiresAt };
}
