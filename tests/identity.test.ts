import { spawnSync } from 'node:child_process';
import { createHash, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { nativeCrypto } from '../src/agent-gateway/crypto/native.ts';
import { loadIdentity } from '../src/agent-gateway/identity.ts';
import { IdentityError, prepareNextKey, promoteNextKey } from '../src/agent-gateway/key-files.ts';

describe("the gateway's identity", () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'aegis-identity-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const path = (name: string) => join(directory, name);
  const load = (dataDir = directory) => loadIdentity({ files: null, dataDir }).current;
  const loadFiles = (privateKeyPath: string, publicKeyPath: string) =>
    loadIdentity({ files: { privateKeyPath, publicKeyPath }, dataDir: 'memory' }).current;
  const hex = (key: Uint8Array) => Buffer.from(key).toString('hex');

  function writePair(name: string, type: 'ed25519' | 'x25519' = 'ed25519'): { privateKey: string; publicKey: string } {
    const pair = type === 'ed25519' ? generateKeyPairSync('ed25519') : generateKeyPairSync('x25519');
    writeFileSync(path(`${name}.pem`), pair.privateKey.export({ format: 'pem', type: 'pkcs8' }));
    writeFileSync(path(`${name}.pub`), pair.publicKey.export({ format: 'pem', type: 'spki' }));
    return { privateKey: path(`${name}.pem`), publicKey: path(`${name}.pub`) };
  }

  function writeText(text: string): string {
    writeFileSync(path('text.pem'), text);
    return path('text.pem');
  }

  it('is made once, for its owner alone to read, and stays the same', () => {
    const first = load();
    expect(readdirSync(directory).sort()).toEqual(['gateway-private.pem', 'gateway-public.pem']);
    for (const file of readdirSync(directory)) expect(statSync(path(file)).mode & 0o777).toBe(0o600);
    const again = load();
    expect(hex(again.publicKey)).toBe(hex(first.publicKey));
    const message = new Uint8Array([1, 2, 3]);
    expect(nativeCrypto.verify(first.publicKey, message, again.sign(message))).toBe(true);
  });

  it('makes the directory, for its owner alone', () => {
    load(path('new/data'));
    expect(statSync(path('new/data')).mode & 0o777).toBe(0o700);
  });

  it('is made anew for each run where nothing is kept', () => {
    expect(hex(load('memory').publicKey)).not.toBe(hex(load('memory').publicKey));
  });

  it('finds its public half again where only the private one was written', () => {
    const first = load();
    rmSync(path('gateway-public.pem'));
    expect(hex(load().publicKey)).toBe(hex(first.publicKey));
    expect(readFileSync(path('gateway-public.pem'), 'utf8')).toContain('BEGIN PUBLIC KEY');
  });

  it('is one and the same for gateways that start at once', () => {
    const script = path('load.mts');
    const module = new URL('../src/agent-gateway/identity.ts', import.meta.url).href;
    writeFileSync(
      script,
      `import { fork } from 'node:child_process';
       import { loadIdentity } from '${module}';
       if (process.argv[3]) {
         while (Date.now() < Number(process.argv[3])) {}
         process.stdout.write(Buffer.from(loadIdentity({ files: null, dataDir: process.argv[2] }).current.publicKey).toString('hex') + '\\n');
       } else {
         const at = String(Date.now() + 2000);
         for (let i = 0; i < 4; i++) fork(process.argv[1], [process.argv[2], at]);
       }`,
    );
    const { stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', script, path('shared')], {
      encoding: 'utf8',
    });
    const keys = stdout.trim().split('\n');
    expect(stderr).toBe('');
    expect(keys).toHaveLength(4);
    expect(new Set(keys).size).toBe(1);
    expect(hex(load(path('shared')).publicKey)).toBe(keys[0]);
  }, 30_000);

  it('comes from files that are given', () => {
    const { privateKey, publicKey } = writePair('given');
    const key = loadFiles(privateKey, publicKey);
    const { x } = createPublicKey(readFileSync(publicKey)).export({ format: 'jwk' });
    expect(Buffer.from(key.publicKey).toString('base64url')).toBe(x);
    const message = new Uint8Array([7]);
    expect(nativeCrypto.verify(key.publicKey, message, key.sign(message))).toBe(true);
  });

  it.each<[string, () => [string, string], string]>([
    ['are not a pair', () => [writePair('a').privateKey, writePair('b').publicKey], 'is not the public half'],
    ['are missing', () => [path('none.pem'), writePair('b').publicKey], 'cannot be read'],
    ['lack the public one', () => [writePair('a').privateKey, path('none.pub')], 'cannot be read'],
    [
      'are of another kind',
      () => [writePair('a', 'x25519').privateKey, writePair('b').publicKey],
      'not an Ed25519 key',
    ],
    ['are two private keys', () => [writePair('a').privateKey, writePair('a').privateKey], 'cannot be read'],
    ['are two public keys', () => [writePair('a').publicKey, writePair('b').publicKey], 'cannot be read'],
    ['are no PEM', () => [writeText('x'), writePair('b').publicKey], 'cannot be read'],
  ])('is refused where the files %s', (_what, files, reason) => {
    const [privateKey, publicKey] = files();
    expect(() => loadFiles(privateKey, publicKey)).toThrow(IdentityError);
    expect(() => loadFiles(privateKey, publicKey)).toThrow(reason);
  });

  it('is refused where the files that were kept do not match any more', () => {
    load();
    const { publicKey } = writePair('other');
    writeFileSync(path('gateway-public.pem'), readFileSync(publicKey));
    expect(() => load()).toThrow('is not the public half');
  });

  describe('with a next key', () => {
    const location = () => ({ files: null, dataDir: directory });
    const open = () => loadIdentity(location());
    const names = ({ current, next }: Pick<ReturnType<typeof open>, 'current' | 'next'>) => [
      current.fingerprint,
      next?.fingerprint ?? null,
    ];

    it('names its keys by the SHA-256 of their public halves', () => {
      const { current } = open();
      expect(current.fingerprint).toBe(createHash('sha256').update(current.publicKey).digest('hex'));
    });

    it('has it from its preparation on, and in place of the current one after the rotation', () => {
      const identity = open();
      const [first] = names(identity);
      const changes: (string | null)[][] = [];
      identity.onChange((keys) => changes.push(names(keys)));
      const stop = identity.onChange(() => changes.push([]));
      stop();
      identity.reload();
      expect(changes).toEqual([]);

      const { fingerprint: second } = prepareNextKey(location());
      for (const file of readdirSync(directory)) expect(statSync(path(file)).mode & 0o777).toBe(0o600);
      expect(names(identity)).toEqual([first, null]);
      identity.reload();
      expect(promoteNextKey(location()).fingerprint).toBe(second);
      const used = identity.current;
      identity.reload();
      identity.reload();
      expect(changes).toEqual([
        [first, second],
        [second, null],
      ]);
      expect(names(open())).toEqual([second, null]);
      // What a link took at its handshake goes on working.
      const message = new Uint8Array([1]);
      expect(nativeCrypto.verify(used.publicKey, message, used.sign(message))).toBe(true);
    });

    it('stands beside files that are given', () => {
      const { privateKey, publicKey } = writePair('given');
      const given = { files: { privateKeyPath: privateKey, publicKeyPath: publicKey }, dataDir: 'memory' };
      const { fingerprint } = prepareNextKey(given);
      expect(loadIdentity(given).next?.fingerprint).toBe(fingerprint);
      promoteNextKey(given);
      expect(names(loadIdentity(given))).toEqual([fingerprint, null]);
    });

    it('is not made twice, nor promoted where there is none, nor kept in memory', () => {
      open();
      expect(() => promoteNextKey(location())).toThrow(IdentityError);
      const { fingerprint } = prepareNextKey(location());
      expect(() => prepareNextKey(location())).toThrow('is there already');
      expect(open().next?.fingerprint).toBe(fingerprint);
      for (const change of [prepareNextKey, promoteNextKey])
        expect(() => change({ files: null, dataDir: 'memory' })).toThrow(IdentityError);
    });

    it('survives a preparation and a rotation that were cut off half-way', () => {
      const [first] = names(open());
      prepareNextKey(location());
      rmSync(path('gateway-private.pem.next'));
      expect(names(open())).toEqual([first, null]);
      const { fingerprint: second } = prepareNextKey(location());
      renameSync(path('gateway-private.pem.next'), path('gateway-private.pem'));
      expect(names(open())).toEqual([second, null]);
      expect(promoteNextKey(location()).fingerprint).toBe(second);
      expect(names(open())).toEqual([second, null]);
      expect(readdirSync(directory).sort()).toEqual(['gateway-private.pem', 'gateway-public.pem']);
    });

    it('keeps the keys that it has where they cannot be read again', () => {
      const identity = open();
      const [first] = names(identity);
      writeFileSync(path('gateway-private.pem.next'), 'x');
      expect(() => identity.reload()).toThrow(IdentityError);
      expect(names(identity)).toEqual([first, null]);
    });
  });
});
