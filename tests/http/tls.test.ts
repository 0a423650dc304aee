import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, type TLSSocket } from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { type Certificates, loadCertificates, TlsError } from '../../src/http/tls.ts';
import { SteppedClock } from '../agent-gateway/clocks.ts';
import { RawAgent } from '../agent-gateway/raw-agent.ts';
import { makeCertificate, type TestCertificate } from '../support/certificates.ts';
import { startTestGateway, type TestGateway } from '../support/gateway.ts';

const authority = makeCertificate('Authority');
const one = makeCertificate('one', { issuer: authority });
const other = makeCertificate('other', { issuer: authority });
const lookMs = 5_000;
const dayMs = 86_400_000;

let folder: string;
const pathOf = (name: string) => join(folder, name);
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'aegis-tls-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Each file whole, into its place by a rename. */
function put(files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(pathOf(`${name}.new`), text);
    renameSync(pathOf(`${name}.new`), pathOf(name));
  }
}

const pairOf = ({ certPem, keyPem }: TestCertificate) => ({ 'cert.pem': certPem, 'key.pem': keyPem });

describe('certificates', () => {
  let clock: SteppedClock;
  let certificates: Certificates;
  let served: string[];
  let logged: string[];
  beforeEach(() => {
    clock = new SteppedClock();
    served = [];
    logged = [];
  });
  afterEach(() => certificates?.stop());

  function load(clientCaPath: string | null = null): void {
    certificates = loadCertificates(
      { certPath: pathOf('cert.pem'), keyPath: pathOf('key.pem'), clientCaPath },
      { clock, logError: (error) => logged.push(String(error)), onReloaded: () => {} },
    );
    certificates.onChange((context) => served.push(context.cert.toString()));
  }

  describe('at the start', () => {
    it.each([
      ['a missing file', { 'cert.pem': one.certPem }, /key\.pem cannot be read$/],
      ['the key of another', { ...pairOf(one), 'key.pem': other.keyPem }, /key\.pem is not the key of the first/],
      ['no certificate', { ...pairOf(one), 'cert.pem': one.keyPem }, /cert\.pem holds no PEM certificate$/],
      ['half a certificate', { ...pairOf(one), 'cert.pem': one.certPem.slice(0, 200) }, /cert\.pem holds no PEM/],
      [
        'a certificate of nonsense',
        { ...pairOf(one), 'cert.pem': '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n' },
        /cert\.pem holds what is no certificate$/,
      ],
      ['no key', { ...pairOf(one), 'key.pem': one.certPem }, /key\.pem holds no PEM private key/],
      ['a chain in the wrong order', { ...pairOf(one), 'cert.pem': authority.certPem + one.certPem }, /is not the key/],
    ])('must fit: %s', (_what, files, text) => {
      put(files);
      expect(load).toThrow(TlsError);
      expect(load).toThrow(text);
    });

    it('must have what agents are checked with, where they are', () => {
      put({ ...pairOf(one), 'ca.pem': 'nothing' });
      expect(() => load(pathOf('ca.pem'))).toThrow(/ca\.pem holds no PEM certificate$/);
    });

    it('may be a chain', () => {
      put({ ...pairOf(one), 'cert.pem': one.certPem + authority.certPem });
      expect(load).not.toThrow();
    });
  });

  it('are served anew when their files change, within seconds and once', () => {
    put(pairOf(one));
    load();
    clock.advance(10 * lookMs);
    expect(served).toEqual([]);
    put(pairOf(other));
    clock.advance(lookMs);
    clock.advance(10 * lookMs);
    expect(served).toEqual([other.certPem]);
    expect(logged).toEqual([]);
  });

  it('are served anew at once where that is asked for', () => {
    put(pairOf(one));
    load();
    put(pairOf(other));
    certificates.reload();
    expect(served).toEqual([other.certPem]);
  });

  it('follow a directory that is swapped under a symbolic link, as Kubernetes does it', () => {
    for (const [version, certificate] of Object.entries({ v1: one, v2: other })) {
      mkdirSync(pathOf(version));
      for (const [name, text] of Object.entries(pairOf(certificate))) writeFileSync(pathOf(`${version}/${name}`), text);
    }
    const pointTo = (version: string) => {
      symlinkSync(version, pathOf('..data.new'));
      renameSync(pathOf('..data.new'), pathOf('..data'));
    };
    pointTo('v1');
    for (const name of ['cert.pem', 'key.pem']) symlinkSync(`..data/${name}`, pathOf(name));
    load();
    pointTo('v2');
    rmSync(pathOf('v1'), { recursive: true });
    clock.advance(lookMs);
    expect(served).toEqual([other.certPem]);
  });

  it('stay as they are while a pair is half written, which is told once', () => {
    put(pairOf(one));
    load();
    put({ 'cert.pem': other.certPem });
    clock.advance(3 * lookMs);
    expect(served).toEqual([]);
    expect(certificates.context.cert.toString()).toBe(one.certPem);
    expect(logged).toEqual([expect.stringContaining('is not the key of the first certificate')]);
    expect(certificates.warnings()).toEqual([expect.stringContaining('cannot be used')]);
    put({ 'key.pem': other.keyPem });
    clock.advance(lookMs);
    expect(served).toEqual([other.certPem]);
    expect(certificates.warnings()).toEqual([]);
  });

  it('stay as they are while a file is away, which is told once and over when it is back', () => {
    put(pairOf(one));
    load();
    rmSync(pathOf('key.pem'));
    clock.advance(3 * lookMs);
    expect(logged).toEqual([expect.stringContaining('cannot be read')]);
    expect(certificates.warnings()).toHaveLength(1);
    put(pairOf(one));
    clock.advance(lookMs);
    expect({ served, warnings: certificates.warnings() }).toEqual({ served: [], warnings: [] });
  });

  it('say nothing of what is in a file', () => {
    put(pairOf(one));
    load();
    put({ 'key.pem': one.keyPem.slice(0, -60) });
    clock.advance(lookMs);
    expect(logged).toHaveLength(1);
    expect(logged.join()).not.toContain(one.keyPem.split('\n')[1]);
  });

  it.each([
    ['15 days before', 15, []],
    ['13 days before', 13, [/^the TLS certificate expires at \d{4}-/]],
    ['a day after', -1, [/^the TLS certificate expired at \d{4}-/]],
  ])('warn of their end: %s', (_when, days, warnings) => {
    const expiresAt = new Date(Math.floor((clock.now() + days * dayMs) / 1_000) * 1_000);
    const short = makeCertificate('short', { issuer: authority, expiresAt });
    put({ ...pairOf(short), 'cert.pem': short.certPem + authority.certPem });
    load();
    expect(certificates.expiresAt).toEqual(expiresAt);
    expect(certificates.warnings()).toEqual(warnings.map((text) => expect.stringMatching(text)));
  });

  it('end with the first certificate of their chain that does', () => {
    const expiresAt = new Date('2027-01-02T03:04:05Z');
    const middle = makeCertificate('middle', { issuer: authority, expiresAt });
    const own = makeCertificate('own', { issuer: middle });
    put({ ...pairOf(own), 'cert.pem': own.certPem + middle.certPem });
    load();
    expect(certificates.expiresAt).toEqual(expiresAt);
  });
});

describe('a gateway with TLS', () => {
  let gateway: TestGateway;
  let files: string;
  const inFiles = (name: string) => join(files, name);

  beforeAll(async () => {
    files = mkdtempSync(join(tmpdir(), 'aegis-tls-gateway-'));
    for (const [name, text] of Object.entries({ ...pairOf(one), 'ca.pem': authority.certPem }))
      writeFileSync(inFiles(name), text);
    gateway = await startTestGateway({
      env: {
        ...{ LISTEN_HOST: '127.0.0.1', TLS_CERT_PATH: inFiles('cert.pem'), TLS_KEY_PATH: inFiles('key.pem') },
        TLS_CLIENT_CA_PATH: inFiles('ca.pem'),
      },
    });
  });
  afterAll(async () => {
    await gateway.stop();
    rmSync(files, { recursive: true });
  });

  const port = () => Number(new URL(gateway.url).port);

  function get(
    path: string,
    headers: Record<string, string> = {},
  ): Promise<{ status: number; headers: object; text: string }> {
    const agent = new Agent({ ca: authority.certPem, keepAlive: false });
    return new Promise((resolve, reject) => {
      const outgoing = request({ port: port(), host: '127.0.0.1', path, headers, agent }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
        response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
      });
      outgoing.on('error', reject);
      outgoing.end();
    });
  }

  function handshake(options: object): Promise<{ name: string; protocol: string | null } | Error> {
    return new Promise((resolve) => {
      const socket: TLSSocket = connect(
        { port: port(), host: '127.0.0.1', servername: 'localhost', ca: authority.certPem, ...options },
        () => {
          resolve({ name: String(socket.getPeerCertificate().subject.CN), protocol: socket.getProtocol() });
          socket.destroy();
        },
      );
      socket.on('error', resolve);
    });
  }

  it('speaks 1.2 and 1.3, and nothing older', async () => {
    expect(await handshake({ maxVersion: 'TLSv1.2' })).toMatchObject({ protocol: 'TLSv1.2' });
    expect(await handshake({})).toMatchObject({ protocol: 'TLSv1.3' });
    const older = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' };
    expect(await handshake(older)).toBeInstanceOf(Error);
  });

  it('speaks no plain text on its port', async () => {
    await expect(fetch(`http://127.0.0.1:${port()}/healthz`)).rejects.toThrow();
  });

  it('tells browsers to come over TLS alone from then on', async () => {
    const { status, headers } = await get('/healthz');
    expect(status).toBe(200);
    expect(headers).toMatchObject({ 'strict-transport-security': 'max-age=31536000', 'x-frame-options': 'DENY' });
  });

  it('shows when its certificate expires', async () => {
    const { text } = await get('/metrics', { authorization: `Bearer ${gateway.token}` });
    const [, seconds = ''] = /^aegis_tls_certificate_expiry_timestamp_seconds (\S+)$/m.exec(text) ?? [];
    expect(Number(seconds) * 1_000).toBeGreaterThan(Date.now() + 300 * dayMs);
    const readiness: unknown = JSON.parse((await get('/readyz')).text);
    expect(readiness).not.toHaveProperty('warnings');
  });

  describe('and certificates of agents', () => {
    const dial = (client: Partial<{ cert: string; key: string }>) =>
      new WebSocket(`wss://127.0.0.1:${port()}/ws/agent`, { ca: authority.certPem, ...client });

    const statusOf = (socket: WebSocket) =>
      new Promise<number>((resolve, reject) => {
        socket.on('open', () => resolve(101));
        socket.on('unexpected-response', (_request, response) => resolve(response.statusCode ?? 0));
        socket.on('error', reject);
      });

    it('lets those in that have one of the right authority', async () => {
      const socket = dial({ cert: other.certPem, key: other.keyPem });
      expect(await statusOf(socket)).toBe(101);
      socket.terminate();
    });

    const stranger = makeCertificate('stranger');
    const expired = makeCertificate('expired', { issuer: authority, expiresAt: new Date(Date.now() - dayMs) });
    it.each([
      ['none', {}],
      ['one of nobody’s', { cert: stranger.certPem, key: stranger.keyPem }],
      ['one that has expired', { cert: expired.certPem, key: expired.keyPem }],
    ])('refuses those that have %s', async (_what, client) => {
      const socket = dial(client);
      expect(await statusOf(socket)).toBe(403);
      socket.terminate();
    });

    it('asks consumers for none', async () => {
      expect((await get('/agents', { authorization: `Bearer ${gateway.token}` })).status).toBe(200);
    });
  });
});

describe('a new certificate', () => {
  const clock = new SteppedClock();

  it('is served to those who come, and costs nobody who is there', async () => {
    put(pairOf(one));
    const gateway = await startTestGateway({
      clock,
      env: { LISTEN_HOST: '127.0.0.1', TLS_CERT_PATH: pathOf('cert.pem'), TLS_KEY_PATH: pathOf('key.pem') },
    });
    try {
      const { port } = new URL(gateway.url);
      const url = `wss://localhost:${port}/ws/agent`;
      const agent = await RawAgent.authenticated({ url, ca: authority.certPem, now: () => clock.now() });
      const nameServed = () =>
        new Promise<string>((resolve, reject) => {
          const socket = connect({
            port: Number(port),
            host: '127.0.0.1',
            servername: 'localhost',
            ca: authority.certPem,
          });
          socket.once('secureConnect', () => {
            resolve(String(socket.getPeerCertificate().subject.CN));
            socket.destroy();
          });
          socket.once('error', reject);
        });
      expect(await nameServed()).toBe('one');
      put(pairOf(other));
      clock.advance(lookMs);
      expect(await nameServed()).toBe('other');
      expect(agent.isOpen).toBe(true);
      agent.socket.ping('still there');
      await new Promise((resolve) => agent.socket.once('pong', resolve));
      agent.terminate();
      await agent.closed;
    } finally {
      await gateway.stop();
    }
  });
});
