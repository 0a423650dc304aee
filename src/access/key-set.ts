import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey } from 'jose';
import { z } from 'zod';
import type { Clock } from '../clock.ts';
import { AegisError } from '../errors.ts';

type FindKey = ReturnType<typeof createLocalJWKSet>;

/** How long a set counts as new. */
const freshMs = 10 * 60_000;
/** How long a set serves that cannot be had again: an issuer that is away must not lock everyone out. */
const staleMs = 24 * 3_600_000;
/** Between two attempts: nobody can make us ask more often by naming keys that there are not. */
const pauseMs = 30_000;
const timeoutMs = 5_000;
const maxBytes = 256 * 1024;

const keySetSchema = z.object({ keys: z.array(z.looseObject({ kty: z.string() })).max(1_000) });

/** The keys that an issuer publishes at a URL (RFC 7517, section 5). */
export interface KeySet {
  /** Throws UNAVAILABLE where there are none to be had. */
  readonly find: JWTVerifyGetKey;
  /** Reads them again at once; those from before stay where that fails. Never rejects. */
  reload(): Promise<void>;
}

/**
 * Keys are read again every ten minutes and where a token names one that is not among them, though not more often than every
 * 30 s. `onWithdrawn` is called where one is not among them any more.
 */
export function createKeySet(
  url: string,
  deps: {
    readonly clock: Clock;
    readonly logError: (error: unknown, context: string) => void;
    readonly onWithdrawn: () => void;
  },
): KeySet {
  const { clock } = deps;
  let current: { readonly find: FindKey; readonly keys: ReadonlySet<string>; readonly readAtMs: number } | null = null;
  let attemptedAtMs = Number.NEGATIVE_INFINITY;
  let reading: Promise<void> | null = null;

  /** Reads the set again unless that was tried just now. Never rejects. */
  async function refresh(): Promise<void> {
    if (reading) return reading;
    if (clock.now() - attemptedAtMs < pauseMs) return undefined;
    attemptedAtMs = clock.now();
    reading = read();
    try {
      return await reading;
    } finally {
      reading = null;
    }
  }

  async function read(): Promise<void> {
    try {
      const keySet = await fetchKeySet(url);
      const before = current?.keys ?? new Set();
      const keys = new Set(keySet.keys.map(materialOf));
      current = { find: createLocalJWKSet(keySet), keys, readAtMs: clock.now() };
      if ([...before].some((key) => !keys.has(key))) deps.onWithdrawn();
    } catch (error) {
      deps.logError(error, 'the keys of JWT_JWKS_URL could not be read');
    }
  }

  async function set(): Promise<FindKey> {
    const ageMs = () => (current === null ? Number.POSITIVE_INFINITY : clock.now() - current.readAtMs);
    if (ageMs() > staleMs) await refresh();
    else if (ageMs() > freshMs) void refresh();
    if (current === null || ageMs() > staleMs) throw new AegisError('UNAVAILABLE');
    return current.find;
  }

  return {
    async find(header, token) {
      const find = await set();
      try {
        return await find(header, token);
      } catch (error) {
        if (!(error instanceof errors.JWKSNoMatchingKey)) throw error;
        await refresh();
        return (await set())(header, token);
      }
    },
    async reload() {
      // What is being read may be older than the wish.
      await reading;
      attemptedAtMs = Number.NEGATIVE_INFINITY;
      await refresh();
    },
  };
}

/** What tells one key from another, whatever else is said of it. */
function materialOf({ kty, crv, x, y, n, e }: JSONWebKeySet['keys'][number]): string {
  return JSON.stringify([kty, crv, x, y, n, e]);
}

async function fetchKeySet(url: string): Promise<JSONWebKeySet> {
  const response = await fetch(url, {
    headers: { accept: 'application/jwk-set+json, application/json' },
    // Whoever may send us elsewhere could name the keys.
    redirect: 'error',
    signal: AbortSignal.timeout(timeoutMs),
  });
  if (!response.ok) throw new Error(`the issuer answers ${response.status}`);
  const { keys } = keySetSchema.parse(JSON.parse(await textOf(response)));
  return { keys };
}

async function textOf(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length;
    if (bytes > maxBytes) throw new Error(`the issuer answers more than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}
