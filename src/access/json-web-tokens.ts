import { createHash, createPublicKey, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { errors, type JWTPayload, type JWTVerifyOptions, jwtVerify } from 'jose';
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

/** JSON Web Tokens of one issuer. */
export interface Tokens {
  readonly read: TokenReader;
  /** Reads the issuer's keys again; where that fails, those from before stay. Never rejects. */
  reload(): Promise<void>;
}

interface TokenDeps {
  readonly clock: Clock;
  /** What time it is. */
  readonly wall: Pick<Clock, 'now'>;
  readonly logError: (error: unknown, context: string) => void;
  /** Called where a key is good for nothing any more: whoever was let in by it has to come again. */
  readonly onKeyWithdrawn: () => void;
}

/**
 * Knows JSON Web Tokens (RFC 7519) of one issuer: signed with an algorithm of the list, for this audience, in their time. Throws
 * a TokenKeyError where there is no key to begin with.
 */
export function createTokens(issuer: TokenIssuer, deps: TokenDeps): Tokens {
  const { clock, wall } = deps;
  let remembered = createRemembered(clock, wall);
  const { verify, reload } = verifierOf(issuer, {
    ...deps,
    onKeyWithdrawn() {
      remembered = createRemembered(clock, wall);
      deps.onKeyWithdrawn();
    },
  });

  async function find(token: string): Promise<Consumer | null> {
    const now = new Date(wall.now());
    const findings = remembered;
    try {
      const payload = await verify(token, {
        issuer: issuer.issuer,
        audience: issuer.audience,
        algorithms: [...issuer.algorithms],
        clockTolerance: leewaySeconds,
        requiredClaims: ['exp'],
        currentDate: now,
      });
      // The key may have been withdrawn meanwhile, and whoever it had let in been sent away already.
      return findings === remembered ? consumerOf(payload, now) : find(token);
    } catch (error) {
      // Every fault of a token is one of these; what else goes wrong is ours.
      if (error instanceof errors.JOSEError || error instanceof TypeError) return null;
      throw error;
    }
  }

  return {
    read(token) {
      if (!/^[\w-]+\.[\w-]+\.[\w-]*$/.test(token)) return undefined;
      return remembered.get(createHash('sha256').update(token).digest('base64'), () => find(token));
    },
    reload,
  };
}

interface Verifier {
  verify(token: string, options: JWTVerifyOptions): Promise<JWTPayload>;
  reload(): Promise<void>;
}

function verifierOf({ keys }: TokenIssuer, deps: TokenDeps): Verifier {
  if ('publicKeyPath' in keys) return fileVerifier(keys.publicKeyPath, deps);
  const keySet = createKeySet(keys.jwksUrl, { ...deps, onWithdrawn: deps.onKeyWithdrawn });
  return {
    verify: async (token, options) => (await jwtVerify(token, keySet.find, options)).payload,
    reload: keySet.reload,
  };
}

function fileVerifier(path: string, { logError, onKeyWithdrawn }: TokenDeps): Verifier {
  let key = publicKeyIn(path);
  return {
    verify: async (token, options) => (await jwtVerify(token, key, options)).payload,
    async reload() {
      try {
        const read = publicKeyIn(path);
        if (read.equals(key)) return;
        key = read;
        onKeyWithdrawn();
      } catch (error) {
        logError(error, 'the key of JWT_PUBLIC_KEY_PATH could not be read again; the one from before stays in use');
      }
    },
  };
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
