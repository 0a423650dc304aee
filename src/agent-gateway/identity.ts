import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { signingKeyFromKeyObject } from './crypto/native.ts';
import type { SigningKey } from './crypto/suite.ts';

/** The key files do not hold a pair of Ed25519 keys. */
export class IdentityError extends Error {
  constructor(reason: string, options?: ErrorOptions) {
    super(reason, options);
    this.name = 'IdentityError';
  }
}

/**
 * The gateway's Ed25519 identity: from PEM files (PKCS#8 and SPKI), which must exist and match, or kept in `dataDir`, where it
 * is made on the first start (0600), or for this run alone where `dataDir` is `memory`. Throws IdentityError.
 */
export function loadIdentity(options: {
  readonly files: { readonly privateKeyPath: string; readonly publicKeyPath: string } | null;
  readonly dataDir: string;
}): SigningKey {
  if (options.files) return readPair(options.files.privateKeyPath, options.files.publicKeyPath);
  if (options.dataDir === 'memory') return signingKeyFromKeyObject(generateKeyPairSync('ed25519').privateKey);
  const privateKeyPath = join(options.dataDir, 'gateway-private.pem');
  const publicKeyPath = join(options.dataDir, 'gateway-public.pem');
  if (!existsSync(privateKeyPath)) makePair(options.dataDir, privateKeyPath, publicKeyPath);
  return readPair(privateKeyPath, publicKeyPath);
}

function makePair(dataDir: string, privateKeyPath: string, publicKeyPath: string): void {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  // The private key last: where it exists, the pair is whole.
  writeFileSync(publicKeyPath, publicKey.export({ format: 'pem', type: 'spki' }), { mode: 0o600 });
  writeFileSync(privateKeyPath, privateKey.export({ format: 'pem', type: 'pkcs8' }), { mode: 0o600, flag: 'wx' });
}

function readPair(privateKeyPath: string, publicKeyPath: string): SigningKey {
  const privateKey = readKey(privateKeyPath, createPrivateKey);
  const publicKey = readKey(publicKeyPath, createPublicKey);
  if (privateKey.asymmetricKeyType !== 'ed25519') throw new IdentityError(`${privateKeyPath} is not an Ed25519 key`);
  if (!createPublicKey(privateKey).equals(publicKey))
    throw new IdentityError(`${publicKeyPath} is not the public half of ${privateKeyPath}`);
  return signingKeyFromKeyObject(privateKey);
}

function readKey(path: string, create: (pem: string) => KeyObject): KeyObject {
  try {
    return create(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new IdentityError(`${path} cannot be read as a PEM key`, { cause: error });
  }
}
