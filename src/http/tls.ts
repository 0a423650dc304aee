import { createHash, createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import type { Clock } from '../clock.ts';

/** PEM files. */
export interface TlsFiles {
  /** The chain, the gateway's own certificate first. */
  readonly certPath: string;
  readonly keyPath: string;
  /** Whose certificates agents must bring; null where they need none. */
  readonly clientCaPath: string | null;
}

/** The files cannot be read, or do not fit together. The text names the file and never what is in it. */
export class TlsError extends Error {
  constructor(reason: string, options?: ErrorOptions) {
    super(reason, options);
    this.name = 'TlsError';
  }
}

/** What TLS serves with, as node:tls takes it. */
export interface TlsContext {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca?: Buffer;
  readonly minVersion: 'TLSv1.2';
}

/** The certificate that the gateway serves with, kept up with its files. */
export interface Certificates {
  readonly context: TlsContext;
  /** Whether agents must bring a certificate. */
  readonly asksClients: boolean;
  /** When the first certificate of the chain expires. */
  readonly expiresAt: Date;
  /** What an operator should see to; the texts are shown to anyone. */
  warnings(): readonly string[];
  /** Calls `serve` with every new context, for connections to come. One listener takes it. */
  onChange(serve: (context: TlsContext) => void): void;
  /** Reads the files again. A pair that is not whole or does not fit is told to the log, once, and the one from before stays. */
  reload(): void;
  /** Stops looking after the files. */
  stop(): void;
}

/**
 * How often the files are looked at. Their contents are compared, not watched: a directory that is swapped under a symbolic
 * link, as Kubernetes does it, or a file that is renamed into place leaves watchers behind with what is gone.
 */
const lookIntervalMs = 5_000;
const warnBeforeMs = 14 * 86_400_000;

/** Throws a TlsError where there is nothing to begin with. */
export function loadCertificates(
  files: TlsFiles,
  deps: {
    readonly clock: Clock;
    readonly logError: (error: unknown, context: string) => void;
    readonly onReloaded: (expiresAt: Date) => void;
  },
): Certificates {
  let seen = read(files);
  let current = understand(files, seen);
  let isUnreadable = false;
  let isUnfit = false;
  let serve: (context: TlsContext) => void = () => {};
  const tell = (error: unknown) =>
    deps.logError(error, 'the TLS files cannot be used; the certificate from before stays');

  /** Does nothing where the files are as they were last seen, good or bad. */
  function look(): void {
    const contents = readAgain();
    if (contents === null || contents.digest === seen.digest) return;
    seen = contents;
    try {
      current = understand(files, contents);
      isUnfit = false;
    } catch (error) {
      isUnfit = true;
      tell(error);
      return;
    }
    serve(current.context);
    deps.onReloaded(current.expiresAt);
  }

  function readAgain(): Contents | null {
    try {
      const contents = read(files);
      isUnreadable = false;
      return contents;
    } catch (error) {
      if (!isUnreadable) tell(error);
      isUnreadable = true;
      return null;
    }
  }

  const stop = deps.clock.every(lookIntervalMs, look);
  return {
    get context() {
      return current.context;
    },
    asksClients: files.clientCaPath !== null,
    get expiresAt() {
      return current.expiresAt;
    },
    warnings() {
      const leftMs = current.expiresAt.getTime() - deps.clock.now();
      const expiry = current.expiresAt.toISOString();
      return [
        ...(leftMs <= 0 ? [`the TLS certificate expired at ${expiry}`] : []),
        ...(leftMs > 0 && leftMs < warnBeforeMs ? [`the TLS certificate expires at ${expiry}`] : []),
        ...(isUnreadable || isUnfit ? ['the TLS files cannot be used; the certificate from before stays'] : []),
      ];
    },
    onChange(listener) {
      serve = listener;
    },
    reload: look,
    stop,
  };
}

interface Contents {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca: Buffer | null;
  readonly digest: string;
}

function read({ certPath, keyPath, clientCaPath }: TlsFiles): Contents {
  const [cert, key] = [readOne(certPath), readOne(keyPath)];
  const ca = clientCaPath === null ? null : readOne(clientCaPath);
  const hash = createHash('sha256');
  for (const file of [cert, key, ca ?? '']) hash.update(`${file.length}:`).update(file);
  return { cert, key, ca, digest: hash.digest('base64') };
}

function readOne(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new TlsError(`${path} cannot be read`, { cause: error });
  }
}

function understand(files: TlsFiles, { cert, key, ca }: Contents): { context: TlsContext; expiresAt: Date } {
  const chain = certificatesIn(cert, files.certPath);
  if (ca && files.clientCaPath !== null) certificatesIn(ca, files.clientCaPath);
  const context: TlsContext = { cert, key, ...(ca ? { ca } : {}), minVersion: 'TLSv1.2' };
  const [own] = chain;
  if (!own?.checkPrivateKey(privateKeyIn(key, files.keyPath)))
    throw new TlsError(`${files.keyPath} is not the key of the first certificate in ${files.certPath}`);
  try {
    createSecureContext(context);
  } catch (error) {
    throw new TlsError(`${files.certPath} and ${files.keyPath} cannot be served with`, { cause: error });
  }
  return { context, expiresAt: new Date(Math.min(...chain.map(({ validTo }) => Date.parse(validTo)))) };
}

const pemCertificate = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

function certificatesIn(pem: Buffer, path: string): X509Certificate[] {
  const blocks = pem.toString('latin1').match(pemCertificate) ?? [];
  if (blocks.length === 0) throw new TlsError(`${path} holds no PEM certificate`);
  try {
    return blocks.map((block) => new X509Certificate(block));
  } catch (error) {
    throw new TlsError(`${path} holds what is no certificate`, { cause: error });
  }
}

function privateKeyIn(pem: Buffer, path: string) {
  try {
    return createPrivateKey(pem);
  } catch (error) {
    throw new TlsError(`${path} holds no PEM private key without a passphrase`, { cause: error });
  }
}
