import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, SignJWT } from 'jose';

export const issuer = 'https://issuer.example';
export const audience = 'aegis';

/** A key pair of an issuer's. */
export interface IssuerKey {
  readonly kid: string;
  readonly alg: 'EdDSA' | 'ES256' | 'RS256';
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  /** SPKI. */
  readonly pem: string;
}

export function issuerKey(kid: string, alg: IssuerKey['alg'] = 'EdDSA'): IssuerKey {
  const pair =
    alg === 'EdDSA'
      ? generateKeyPairSync('ed25519')
      : alg === 'ES256'
        ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
        : generateKeyPairSync('rsa', { modulusLength: 2_048 });
  return { kid, alg, ...pair, pem: pair.publicKey.export({ type: 'spki', format: 'pem' }).toString() };
}

/** A token that is good for a minute from `nowMs` on, but for what `claims` say; a claim that is undefined is left out. */
export function signToken(
  key: IssuerKey,
  claims: Readonly<Record<string, unknown>> = {},
  nowMs = Date.now(),
): Promise<string> {
  const seconds = Math.floor(nowMs / 1_000);
  return new SignJWT({
    ...{ iss: issuer, aud: audience, sub: 'console', org_id: 'acme', scope: 'agents:read', exp: seconds + 60 },
    ...claims,
  })
    .setProtectedHeader({ alg: key.alg, kid: key.kid })
    .sign(key.privateKey);
}

/** An issuer that publishes what `keys` holds, and how often it was asked. */
export interface KeyServer {
  readonly url: string;
  keys: readonly IssuerKey[];
  /** What it answers in place of its keys; null: its keys. */
  fault: { readonly status: number; readonly body: string } | null;
  asked: number;
  stop(): Promise<void>;
}

export async function startKeyServer(keys: readonly IssuerKey[]): Promise<KeyServer> {
  const server = createServer((_request, response) => {
    running.asked++;
    const { fault } = running;
    if (fault) {
      response.writeHead(fault.status, { location: 'http://127.0.0.1:1/' }).end(fault.body);
      return;
    }
    void published(running.keys).then((body) => response.end(body));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address: AddressInfo | string | null = server.address();
  if (typeof address !== 'object' || !address) throw new Error('the server listens on no port');
  const running: KeyServer = {
    url: `http://127.0.0.1:${address.port}/keys`,
    ...{ keys, fault: null, asked: 0 },
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  return running;
}

async function published(keys: readonly IssuerKey[]): Promise<string> {
  const jwks = await Promise.all(
    keys.map(async ({ kid, alg, publicKey }) => ({ ...(await exportJWK(publicKey)), kid, alg })),
  );
  return JSON.stringify({ keys: jwks });
}
