import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startV1Agent, type V1Agent } from '../../src/agent-client/index.ts';
import { makeCertificate } from '../support/certificates.ts';
import { createTestDatabase, type TestDatabase } from '../support/databases.ts';
import { eventually } from '../support/eventually.ts';
import { type Run, run, scratchFolder } from './command-line.ts';

/** Long enough for a machine that has other work to do. */
const startTimeoutMs = 120_000;

/** Waits for the greeting, which is written in one piece, and gives the URL of it. */
async function addressOf(serve: Run): Promise<string> {
  const [, url = ''] = await serve.printed(/^ {2}GraphQL +(\S+)\/graphql [\s\S]*^ {2}Database .*\n/m);
  return url;
}

describe('serve', { timeout: startTimeoutMs }, () => {
  let database: TestDatabase;
  let env: Record<string, string>;
  let agents: V1Agent[];
  beforeEach(async () => {
    database = await createTestDatabase();
    agents = [];
    env = { WEBSOCKET_PORT: '0', DATA_DIR: scratchFolder() };
    if (database.databaseUrl) env.DATABASE_URL = database.databaseUrl;
  });
  afterEach(async () => {
    for (const agent of agents) agent.terminate();
    await database.drop();
  });

  async function started(changes: Readonly<Record<string, string>> = {}): Promise<{ serve: Run; url: string }> {
    const serve = run(['serve'], { ...env, ...changes });
    return { serve, url: await addressOf(serve) };
  }

  async function connected(url: string, agentId: string): Promise<V1Agent> {
    const agent = startV1Agent({ url: `${url.replace(/^http/, 'ws')}/ws/agent`, agentId });
    agents.push(agent);
    await agent.ready();
    return agent;
  }

  it('says where everything is, and the token that it made', async () => {
    const { serve, url } = await started();
    expect(serve.stdout).toMatch(/^Aegis gateway \S+ is ready after \d+\.\d s$/m);
    expect(serve.stdout).toContain(`  Agents      ${url.replace('http', 'ws')}/ws/agent   (enrolment: open)`);
    expect(serve.stdout).toContain(`  GraphiQL    ${url}/graphql in a browser`);
    expect(serve.stdout).toContain(`  REST        ${url}/api/v1   (described at ${url}/openapi.json)`);
    const [, token = ''] = /^ {2}Token +(\S+) {3}\(made for this run/m.exec(serve.stdout) ?? [];
    const headers = { authorization: `Bearer ${token}` };
    expect((await fetch(`${url}/agents`, { headers })).status).toBe(200);
    expect((await fetch(`${url}/agents`)).status).toBe(401);
    expect(serve.stdout).not.toContain('Warning');
  });

  it('makes no token in production, says so, and lets nobody in', async () => {
    const { serve, url } = await started({ NODE_ENV: 'production' });
    expect(serve.stdout).toMatch(/^ {2}Token +none: set ADMIN_TOKEN/m);
    expect(serve.stdout).toContain('(enrolment: approval)');
    expect(serve.stdout).not.toContain('GraphiQL');
    const headers = { authorization: 'Bearer undefined' };
    expect((await fetch(`${url}/agents`, { headers })).status).toBe(401);
  });

  it('keeps to itself a token that it was given', async () => {
    const token = 'a-token-of-the-operator';
    const { serve, url } = await started({ ADMIN_TOKEN: token });
    expect((await fetch(`${url}/agents`, { headers: { authorization: `Bearer ${token}` } })).status).toBe(200);
    serve.kill('SIGTERM');
    expect(await serve.ended).toBe(0);
    expect(serve.stdout + serve.stderr).not.toContain(token);
  });

  it('warns of plain text on more than the loopback address', async () => {
    const { serve } = await started({ LISTEN_HOST: '0.0.0.0', ALLOW_PLAINTEXT: 'on' });
    expect(serve.stdout).toMatch(/^ {2}Warning +plain text/m);
  });

  it('stops at SIGTERM with agents connected, tells them to come back, and ends with 0', async () => {
    const { serve, url } = await started();
    const [one, other] = [await connected(url, 'host-1'), await connected(url, 'host-2')];
    serve.kill('SIGTERM');
    expect(await serve.ended).toBe(0);
    expect(serve.stdout).toMatch(/^SIGTERM: stopping$/m);
    for (const agent of [one, other]) expect((await agent.nextEvent('closed')).code).toBe(1012);
  });

  it('starts to its end and then stops where the signal came before it was ready', async () => {
    const serve = run(['serve'], { ...env, LOG_LEVEL: 'silent' });
    const keyFile = join(env.DATA_DIR ?? '', 'gateway-private.pem');
    await eventually(() => existsSync(keyFile), startTimeoutMs);
    serve.kill('SIGTERM');
    expect(await serve.ended).toBe(0);
  });

  it('reloads its certificate at SIGHUP, and does nothing else', async () => {
    const [one, other] = [makeCertificate('one'), makeCertificate('other')];
    const [certPath, keyPath] = [join(env.DATA_DIR ?? '', 'cert.pem'), join(env.DATA_DIR ?? '', 'key.pem')];
    writeFileSync(certPath, one.certPem);
    writeFileSync(keyPath, one.keyPem);
    const { serve } = await started({ LISTEN_HOST: '127.0.0.1', TLS_CERT_PATH: certPath, TLS_KEY_PATH: keyPath });
    writeFileSync(certPath, other.certPem);
    writeFileSync(keyPath, other.keyPem);
    serve.kill('SIGHUP');
    await eventually(() => serve.stderr.includes('a new TLS certificate is served'));
    serve.kill('SIGTERM');
    expect(await serve.ended).toBe(0);
  });

  it('says that it has no workers to replace at SIGUSR2, goes on, and stops at SIGINT as well', async () => {
    const { serve } = await started();
    serve.kill('SIGUSR2');
    await eventually(() => serve.stderr.includes('SIGUSR2 does nothing'));
    serve.kill('SIGINT');
    expect(await serve.ended).toBe(0);
  });

  describe('where the port is taken', () => {
    let other: Server;
    beforeEach(async () => {
      other = createServer();
      await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    });
    afterEach(() => void other.close());

    it('says so in a sentence and ends with 1', async () => {
      const address = other.address();
      const port = typeof address === 'object' && address ? String(address.port) : '';
      const serve = run(['serve'], { ...env, WEBSOCKET_PORT: port });
      expect(await serve.ended).toBe(1);
      expect(serve.stderr).toMatch(/^The address is in use: .*EADDRINUSE.*\n$/);
      expect(serve.stderr).toContain(port);
    });
  });
});

describe('serve on the embedded database', { timeout: startTimeoutMs }, () => {
  it('refuses a directory that another gateway has open, and ends with 2', async () => {
    const folder = scratchFolder();
    mkdirSync(join(folder, 'data'));
    writeFileSync(join(folder, 'data', 'postgres.lock'), String(process.pid));
    const serve = run(['serve'], { WEBSOCKET_PORT: '0', DATA_DIR: join(folder, 'data') });
    expect(await serve.ended).toBe(2);
    expect(serve.stderr).toMatch(/^The embedded database is in use by process \d+ /);
  });

  it('keeps what it was told over a restart, and its key', async () => {
    const env = { WEBSOCKET_PORT: '0', DATA_DIR: scratchFolder(), ADMIN_TOKEN: 'a-token-of-the-operator' };
    const first = run(['serve'], env);
    const agentUrl = `${(await addressOf(first)).replace(/^http/, 'ws')}/ws/agent`;
    const agent = startV1Agent({ url: agentUrl, agentId: 'host-1' });
    await agent.ready();
    const { uid } = agent;
    const key = readFileSync(join(env.DATA_DIR, 'gateway-public.pem'), 'utf8');
    first.kill('SIGTERM');
    expect(await first.ended).toBe(0);
    agent.terminate();

    const second = run(['serve'], env);
    const url = await addressOf(second);
    const headers = { authorization: `Bearer ${env.ADMIN_TOKEN}` };
    const answer: unknown = await (await fetch(`${url}/agents`, { headers })).json();
    expect(answer).toMatchObject({ total: 1, agents: [{ agent_uid: uid, host_id: 'host-1' }] });
    expect(readFileSync(join(env.DATA_DIR, 'gateway-public.pem'), 'utf8')).toBe(key);
  });
});
