import { createPrivateKey, createPublicKey, generateKeyPairSync, hkdfSync, type KeyObject } from 'node:crypto';
import { existsSync, linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { nativeCrypto, signingKeyFromKeyObject } from './crypto/native.ts';
import type { SigningKey } from './crypto/suite.ts';
import { keyFingerprint } from './crypto/v2-schedule.ts';

/** The key files do not hold pairs of Ed25519 keys, or cannot be changed. */
export class IdentityError extends Error {
  constructor(reason: string, options?: ErrorOptions) {
    super(reason, options);
    this.name = 'IdentityError';
  }
}

/** Where the gateway's keys are: in files that are given, or in `dataDir`; nowhere where that is `memory`. */
export interface KeyLocation {
  readonly files: { readonly privateKeyPath: string; readonly publicKeyPath: string } | null;
  readonly dataDir: string;
}

/** One of the gateway's keys, with the fingerprint that `kid` and operators name it by. */
export interface GatewayKey extends SigningKey {
  /** Lower-case hex SHA-256 of the raw public key. */
  readonly fingerprint: string;
  /** 32 bytes that only gateways with this key know, others for each purpose. */
  secretFor(purpose: string): Uint8Array;
}

export interface GatewayKeys {
  readonly current: GatewayKey;
  /** Known to agents before it is used, so that they trust it when it is. */
  readonly next: GatewayKey | null;
}

/** PEM files, PKCS#8 and SPKI. The next pair stands beside the current one, `.next` behind its names. */
interface KeyPaths {
  readonly privateKeyPath: string;
  readonly publicKeyPath: string;
  readonly nextPrivateKeyPath: string;
  readonly nextPublicKeyPath: string;
}

/**
 * Reads the keys. Files that are given must exist and match; in `dataDir` a pair is made on the first start (0600), for
 * `memory` one for this call alone. Throws IdentityError.
 */
export function readKeys(location: KeyLocation): GatewayKeys {
  const paths = pathsOf(location);
  if (!paths) return { current: gatewayKey(newPrivateKey()), next: null };
  if (!location.files) makeCurrentPair(paths);
  const next = existsSync(paths.nextPrivateKeyPath)
    ? readPair(paths.nextPrivateKeyPath, paths.nextPublicKeyPath)
    : null;
  return { current: readCurrentPair(paths), next };
}

/** Makes the next pair. Throws IdentityError where there is one, or nowhere to keep it. */
export function prepareNextKey(location: KeyLocation): GatewayKey {
  const paths = writablePathsOf(location);
  if (existsSync(paths.nextPrivateKeyPath))
    throw new IdentityError(`${paths.nextPrivateKeyPath} is there already: promote it with \`keys rotate\``);
  const privateKey = newPrivateKey();
  // Its private half comes last: a pair without it is none.
  writePublicKey(privateKey, paths.nextPublicKeyPath);
  writePrivateKey(privateKey, paths.nextPrivateKeyPath);
  return gatewayKey(privateKey);
}

/** Puts the next pair in the place of the current one, which is gone then. Throws IdentityError where there is no next one. */
export function promoteNextKey(location: KeyLocation): GatewayKey {
  const paths = writablePathsOf(location);
  if (!existsSync(paths.nextPrivateKeyPath) && !isPromotionCut(paths))
    throw new IdentityError('There is no next key: make one with `keys prepare`, and let agents hear of it first');
  const promoted = existsSync(paths.nextPrivateKeyPath)
    ? readPair(paths.nextPrivateKeyPath, paths.nextPublicKeyPath)
    : readCurrentPair(paths);
  if (existsSync(paths.nextPrivateKeyPath)) renameSync(paths.nextPrivateKeyPath, paths.privateKeyPath);
  renameSync(paths.nextPublicKeyPath, paths.publicKeyPath);
  return promoted;
}

function pathsOf({ files, dataDir }: KeyLocation): KeyPaths | null {
  if (!files && dataDir === 'memory') return null;
  const { privateKeyPath, publicKeyPath } = files ?? {
    privateKeyPath: join(dataDir, 'gateway-private.pem'),
    publicKeyPath: join(dataDir, 'gateway-public.pem'),
  };
  return {
    ...{ privateKeyPath, publicKeyPath },
    ...{ nextPrivateKeyPath: `${privateKeyPath}.next`, nextPublicKeyPath: `${publicKeyPath}.next` },
  };
}

function writablePathsOf(location: KeyLocation): KeyPaths {
  const paths = pathsOf(location);
  if (!paths) throw new IdentityError('DATA_DIR=memory keeps no keys');
  return paths;
}

function makeCurrentPair({ privateKeyPath, publicKeyPath }: KeyPaths): void {
  if (!existsSync(privateKeyPath)) makePrivateKey(privateKeyPath);
  if (!existsSync(publicKeyPath)) writePublicKey(readPrivateKey(privateKeyPath), publicKeyPath);
}

function readCurrentPair(paths: KeyPaths): GatewayKey {
  return readPair(paths.privateKeyPath, isPromotionCut(paths) ? paths.nextPublicKeyPath : paths.publicKeyPath);
}

/** Whether a promotion has come to its first rename and not to its second. */
function isPromotionCut({ privateKeyPath, nextPrivateKeyPath, nextPublicKeyPath }: KeyPaths): boolean {
  if (existsSync(nextPrivateKeyPath) || !existsSync(nextPublicKeyPath)) return false;
  return createPublicKey(readPrivateKey(privateKeyPath)).equals(readKey(nextPublicKeyPath, readPublicPem));
}

function newPrivateKey(): KeyObject {
  return generateKeyPairSync('ed25519').privateKey;
}

/** Whole or not at all; where another gateway has made one meanwhile, that one stays. */
function makePrivateKey(path: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
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

function writePrivateKey(privateKey: KeyObject, path: string): void {
  writeWhole(path, privateKey.export({ format: 'pem', type: 'pkcs8' }));
}

function writePublicKey(privateKey: KeyObject, path: string): void {
  writeWhole(path, createPublicKey(privateKey).export({ format: 'pem', type: 'spki' }));
}

function writeWhole(path: string, pem: string | Buffer): void {
  const temporary = `${path}.${process.pid}`;
  writeFileSync(temporary, pem, { mode: 0o600 });
  renameSync(temporary, path);
}

function readPair(privateKeyPath: string, publicKeyPath: string): GatewayKey {
  const privateKey = readPrivateKey(privateKeyPath);
  const publicKey = readKey(publicKeyPath, readPublicPem);
  if (!createPublicKey(privateKey).equals(publicKey))
    throw new IdentityError(`${publicKeyPath} is not the public half of ${privateKeyPath}`);
  return gatewayKey(privateKey);
}

function gatewayKey(privateKey: KeyObject): GatewayKey {
  const { publicKey, sign } = signingKeyFromKeyObject(privateKey);
  return {
    ...{ publicKey, sign, fingerprint: keyFingerprint(nativeCrypto, publicKey) },
    secretFor(purpose) {
      const privateBytes = privateKey.export({ format: 'der', type: 'pkcs8' });
      return new Uint8Array(hkdfSync('sha256', privateBytes, '', purpose, 32));
    },
  };
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
