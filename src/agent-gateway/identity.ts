import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { existsSync, linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
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
  if (options.dataDir === 'memory') return signingKeyFromKeyObject(newPrivateKey());
  const privateKeyPath = join(options.dataDir, 'gateway-private.pem');
  const publicKeyPath = join(options.dataDir, 'gateway-public.pem');
  if (!existsSync(privateKeyPath)) makePrivateKey(options.dataDir, privateKeyPath);
  if (!existsSync(publicKeyPath)) writePublicKey(readPrivateKey(privateKeyPath), publicKeyPath);
  return readPair(privateKeyPath, publicKeyPath);
}

function newPrivateKey(): KeyObject {
  return generateKeyPairSync('ed25519').privateKey;
}

/** Whole or not at all; where another gateway has made one meanwhile, that one stays. */
function makePrivateKey(dataDir: string, path: string): void {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const temporary = `${path}.${process.pid}`;
  writeFileSync(temporary, newPrivateKey().export({ format: 'pem', type: 'pkcs8' }), { mode: 0o600 });
  try {
    linkSync(temporary, path);
  } catch (error) {
    if (!existsSync(path)) throw new IdentityError(`${path} cannot be written`, { cause: error });
  } finally {
    rmSync(temporary, { force: true });
  }
}

function writePublicKey(privateKey: KeyObject, path: string): void {
  const temporary = `${path}.${process.pid}`;
  writeFileSync(temporary, createPublicKey(privateKey).export({ format: 'pem', type: 'spki' }), { mode: 0o600 });
  renameSync(temporary, path);
}

function readPair(privateKeyPath: string, publicKeyPath: string): SigningKey {
  const privateKey = readPrivateKey(privateKeyPath);
  const publicKey = readKey(publicKeyPath, readPublicPem);
  if (!createPublicKey(privateKey).equals(publicKey))
    throw new IdentityError(`${publicKeyPath} is not the public half of ${privateKeyPath}`);
  return signingKeyFromKeyObject(privateKey);
}

function readPrivateKey(path: string): KeyObject {
  const privateKey = readKey(path, createPrivateKey);
  if (privateKey.asymmetricKeyType !== 'ed25519') throw new IdentityError(`${path} is not an Ed25519 key`);
  return privateKey;
}

/** OpenSSL would take a private key or a certificate for the public key in it. */
function readPublicPem(pem: string): KeyObject {
  if (!pem.includes('-----BEGIN PUBLIC KEY-----')) throw new TypeError('not a public key');
  return createPublicKey(pem);
}

function readKey(path: string, create: (pem: string) => KeyObject): KeyObject {
  try {
    return create(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new IdentityError(`${path} cannot be read as a PEM key`, { cause: error });
  }
}
