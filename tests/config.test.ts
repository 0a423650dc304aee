import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventKinds } from '../src/agent-gateway/wire/channels.ts';
import { ConfigError, readConfig } from '../src/config.ts';

const directory = mkdtempSync(join(tmpdir(), 'aegis-config-'));
const file = join(directory, 'some.pem');
const dayMs = 86_400_000;
beforeAll(() => writeFileSync(file, 'anything'));
afterAll(() => rmSync(directory, { recursive: true }));

function problemsOf(env: Readonly<Record<string, string>>): readonly string[] {
  try {
    readConfig(env);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
}

describe('the configuration', () => {
  it('has the documented defaults', () => {
    expect(readConfig({})).toEqual({
      production: false,
      listenHost: '127.0.0.1',
      listenPort: 8080,
      workers: 1,
      agentPath: '/ws/agent',
      socketReadBufferBytes: 1_024,
      socketWriteBufferBytes: 1_024,
      tls: null,
      trustProxy: [],
      dataDir: './data',
      databaseUrl: null,
      redis: null,
      identity: null,
      adminToken: { token: expect.stringMatching(/^[\w-]{32}$/), generated: true },
      tokenIssuer: null,
      defaultOrg: 'default-org',
      enrollment: 'open',
      keyChange: 'replace',
      agentV1: true,
      deploymentId: '',
      tlsExporter: 'off',
      sessionTimeoutMs: 86_400_000,
      keyRotationIntervalMs: 86_400_000,
      clockSkewMs: 300_000,
      agentAllowance: { framesPerSecond: 2_000, bytesPerSecond: 4_194_304 },
      messageQueueSize: 10_000,
      messageRetryAttempts: 3,
      messageTtlMs: 3_600_000,
      messageRetentionMs: 604_800_000,
      auditRetentionMs: null,
      graphqlLimits: { maxDepth: 15, maxCost: 50_000 },
      documents: { mode: 'off', path: null },
      rateLimits: { consumerPerSecond: 5_000, addressPerSecond: 5_000 },
      streamLimit: 10_000,
      allowedOrigins: [],
      otlpEndpoint: null,
      eventRetentionMs: new Map([
        ['policies', 30 * dayMs],
        ['anomalies', 90 * dayMs],
        ['threats', 365 * dayMs],
        ['processes', 30 * dayMs],
        ['dependencies', 30 * dayMs],
        ['tests', 30 * dayMs],
        ['rollbacks', 30 * dayMs],
        ['heartbeat', dayMs],
        ['status', 30 * dayMs],
        ['logs', 30 * dayMs],
      ]),
      logLevel: 'info',
    });
  });

  it('is stricter in production: approval, quarantine, and no token that nobody has chosen', () => {
    expect(readConfig({ NODE_ENV: 'production' })).toMatchObject({
      production: true,
      enrollment: 'approval',
      keyChange: 'quarantine',
      adminToken: null,
      listenHost: '127.0.0.1',
    });
    expect(readConfig({ NODE_ENV: 'production', AGENT_ENROLLMENT: 'open', AGENT_KEY_CHANGE: 'refuse' })).toMatchObject({
      enrollment: 'open',
      keyChange: 'refuse',
    });
    expect(readConfig({ NODE_ENV: 'test' }).production).toBe(false);
  });

  it('takes every variable as it is given', () => {
    const given = readConfig({
      WEBSOCKET_PORT: '0',
      WORKERS: '4',
      WEBSOCKET_PATH: '/agents/v1.0/ws_-x',
      WEBSOCKET_READ_BUFFER_SIZE: '4096',
      WEBSOCKET_WRITE_BUFFER_SIZE: '8192',
      SESSION_TIMEOUT: '90m',
      ENCRYPTION_ALGORITHM: 'chacha20poly1305',
      KEY_ROTATION_INTERVAL: '7d',
      MESSAGE_QUEUE_SIZE: '5',
      MESSAGE_RETRY_ATTEMPTS: '0',
      MESSAGE_TTL: '30s',
      MESSAGE_RETENTION: '2d',
      AUDIT_RETENTION: '400d',
      EVENT_RETENTION: ' logs = 1h, * = 2d12h ',
      DATABASE_URL: 'postgres://user:pass@db:5432/aegis',
      REDIS_URL: 'rediss://cache:6380',
      AUTH_PRIVATE_KEY_PATH: file,
      AUTH_PUBLIC_KEY_PATH: file,
      LISTEN_HOST: '::1',
      TLS_CERT_PATH: file,
      TLS_KEY_PATH: file,
      TLS_CLIENT_CA_PATH: file,
      TRUST_PROXY: '10.0.0.0/8, 192.0.2.7,2001:db8::/32',
      ALLOW_PLAINTEXT: 'on',
      DATA_DIR: 'memory',
      ADMIN_TOKEN: 'a-token.of_16+/~chars==',
      JWT_JWKS_URL: 'https://issuer.example/keys',
      JWT_ISSUER: 'https://issuer.example',
      JWT_AUDIENCE: 'aegis',
      JWT_ALGORITHMS: 'ES256, EdDSA',
      DEFAULT_ORG: 'acme.corp-1',
      AGENT_ENROLLMENT: 'closed',
      AGENT_KEY_CHANGE: 'quarantine',
      AGENT_V1: 'off',
      AGENT_TLS_EXPORTER: 'required',
      DEPLOYMENT_ID: 'acme.eu-1',
      CLOCK_SKEW: '250ms',
      GRAPHQL_MAX_DEPTH: '8',
      GRAPHQL_MAX_COST: '2000',
      GRAPHQL_DOCUMENTS: 'only',
      GRAPHQL_DOCUMENTS_PATH: file,
      RATE_LIMIT_CONSUMER: '50',
      RATE_LIMIT_ADDRESS: 'off',
      ALLOWED_ORIGINS: 'https://console.example.com, http://localhost:3000',
      AGENT_FRAMES_PER_SECOND: '50',
      AGENT_BYTES_PER_SECOND: '1024',
      OTEL_EXPORTER_OTLP_ENDPOINT: 'https://collector:4318',
      LOG_LEVEL: 'silent',
      UNKNOWN_VARIABLE: 'left alone',
    });
    expect(given).toMatchObject({
      listenHost: '::1',
      listenPort: 0,
      workers: 4,
      agentPath: '/agents/v1.0/ws_-x',
      socketReadBufferBytes: 4_096,
      socketWriteBufferBytes: 8_192,
      sessionTimeoutMs: 5_400_000,
      keyRotationIntervalMs: 604_800_000,
      messageQueueSize: 5,
      messageRetryAttempts: 0,
      messageTtlMs: 30_000,
      messageRetentionMs: 172_800_000,
      auditRetentionMs: 34_560_000_000,
      eventRetentionMs: new Map(eventKinds.map((kind) => [kind, kind === 'logs' ? dayMs / 24 : 2.5 * dayMs])),
      databaseUrl: 'postgres://user:pass@db:5432/aegis',
      redis: {
        ...{ kind: 'server', node: { host: 'cache', port: 6_380 }, db: 0 },
        ...{ tls: true, username: null, password: null },
      },
      identity: { privateKeyPath: file, publicKeyPath: file },
      tls: { certPath: file, keyPath: file, clientCaPath: file },
      trustProxy: ['10.0.0.0/8', '192.0.2.7', '2001:db8::/32'],
      dataDir: 'memory',
      adminToken: { token: 'a-token.of_16+/~chars==', generated: false },
      tokenIssuer: {
        ...{ issuer: 'https://issuer.example', audience: 'aegis', algorithms: ['ES256', 'EdDSA'] },
        keys: { jwksUrl: 'https://issuer.example/keys' },
      },
      defaultOrg: 'acme.corp-1',
      enrollment: 'closed',
      keyChange: 'quarantine',
      agentV1: false,
      tlsExporter: 'required',
      deploymentId: 'acme.eu-1',
      clockSkewMs: 250,
      graphqlLimits: { maxDepth: 8, maxCost: 2_000 },
      documents: { mode: 'only', path: file },
      rateLimits: { consumerPerSecond: 50, addressPerSecond: null },
      allowedOrigins: ['https://console.example.com', 'http://localhost:3000'],
      agentAllowance: { framesPerSecond: 50, bytesPerSecond: 1_024 },
      otlpEndpoint: 'https://collector:4318',
      logLevel: 'silent',
    });
  });

  it('takes one Redis, a cluster and sentinels, each with TLS and credentials or without', () => {
    const redis = (url: string) => readConfig({ REDIS_URL: url }).redis;
    const open = { tls: false, username: null, password: null };
    expect(redis('redis://cache')).toEqual({ kind: 'server', node: { host: 'cache', port: 6_379 }, db: 0, ...open });
    expect(redis('rediss://user:p%40ss:word@[::1]:7000/3')).toEqual({
      ...{ kind: 'server', node: { host: '::1', port: 7_000 }, db: 3 },
      ...{ tls: true, username: 'user', password: 'p@ss:word' },
    });
    expect(redis('redis://:secret@cache?db=2')).toMatchObject({ db: 2, username: null, password: 'secret' });
    expect(redis('redis+cluster://one:7000,two,10.0.0.3:7002')).toEqual({
      kind: 'cluster',
      nodes: [
        { host: 'one', port: 7_000 },
        { host: 'two', port: 6_379 },
        { host: '10.0.0.3', port: 7_002 },
      ],
      ...open,
    });
    expect(redis('rediss+cluster://user:secret@one')).toMatchObject({ kind: 'cluster', tls: true, password: 'secret' });
    expect(redis('redis+sentinel://one,two:5000/fleet')).toEqual({
      kind: 'sentinel',
      sentinels: [
        { host: 'one', port: 26_379 },
        { host: 'two', port: 5_000 },
      ],
      ...{ masterName: 'fleet', db: 0, sentinelUsername: null, sentinelPassword: null },
      ...open,
    });
    expect(redis('rediss+sentinel://:secret@one/fleet?db=4&sentinelUsername=s&sentinelPassword=p')).toMatchObject({
      ...{ tls: true, password: 'secret', db: 4, sentinelUsername: 's', sentinelPassword: 'p' },
    });
  });

  describe('believes JSON Web Tokens', () => {
    const named = { JWT_ISSUER: 'i', JWT_AUDIENCE: 'a' };

    it('of one key, or of keys that are published, for an issuer and an audience', () => {
      expect(readConfig({ ...named, JWT_PUBLIC_KEY_PATH: file }).tokenIssuer).toEqual({
        ...{ issuer: 'i', audience: 'a', algorithms: ['RS256', 'PS256', 'ES256', 'EdDSA'] },
        keys: { publicKeyPath: file },
      });
      for (const url of ['https://issuer.example', 'http://127.0.0.1:9/keys', 'http://[::1]/keys', 'http://localhost/'])
        expect(problemsOf({ ...named, JWT_JWKS_URL: url })).toEqual([]);
    });

    it.each([
      ['no issuer', { JWT_PUBLIC_KEY_PATH: file, JWT_AUDIENCE: 'a' }, 'JWT_ISSUER'],
      ['no audience', { JWT_JWKS_URL: 'https://issuer.example', JWT_ISSUER: 'i' }, 'JWT_AUDIENCE'],
      ['an issuer and no key', { JWT_ISSUER: 'i' }, 'JWT_ISSUER'],
      [
        'two sources of keys',
        { ...named, JWT_PUBLIC_KEY_PATH: file, JWT_JWKS_URL: 'https://i.example' },
        'JWT_JWKS_URL',
      ],
      ['keys over plain text', { ...named, JWT_JWKS_URL: 'http://issuer.example' }, 'JWT_JWKS_URL'],
      ['a URL that is none', { ...named, JWT_JWKS_URL: 'https://' }, 'JWT_JWKS_URL'],
      ['a file that is not there', { ...named, JWT_PUBLIC_KEY_PATH: '/nowhere.pem' }, 'JWT_PUBLIC_KEY_PATH'],
      ['a shared secret', { JWT_ALGORITHMS: 'RS256,HS256' }, 'JWT_ALGORITHMS'],
      ['no signature', { JWT_ALGORITHMS: 'none' }, 'JWT_ALGORITHMS'],
    ])('and not with %s', (_name, env, variable) => {
      expect(problemsOf(env)).toEqual([expect.stringContaining(`${variable}: `)]);
    });
  });

  it('takes an empty variable for an absent one', () => {
    const empty = {
      WEBSOCKET_PORT: '',
      DATABASE_URL: '',
      ADMIN_TOKEN: '',
      AGENT_V1: '',
      TLS_CERT_PATH: '',
      MESSAGE_TTL: '',
    };
    expect(readConfig(empty)).toEqual({ ...readConfig({}), adminToken: expect.anything() });
  });

  it('listens everywhere only with TLS, unless it is told where', () => {
    expect(readConfig({ TLS_CERT_PATH: file, TLS_KEY_PATH: file }).listenHost).toBe('0.0.0.0');
    expect(readConfig({ TLS_CERT_PATH: file, TLS_KEY_PATH: file, LISTEN_HOST: '10.0.0.1' }).listenHost).toBe(
      '10.0.0.1',
    );
    expect(readConfig({}).listenHost).toBe('127.0.0.1');
  });

  it.each(['0.0.0.0', '::', '10.0.0.1', 'gateway.example', '128.0.0.1'])(
    'refuses plain text on %s, unless a proxy is named or it is allowed in so many words',
    (host) => {
      expect(problemsOf({ LISTEN_HOST: host })).toEqual([
        expect.stringMatching(
          /^LISTEN_HOST: must be a loopback address .* TLS_CERT_PATH .* TRUST_PROXY .* ALLOW_PLAINTEXT=on$/,
        ),
      ]);
      expect(problemsOf({ LISTEN_HOST: host, ALLOW_PLAINTEXT: 'off' })).toHaveLength(1);
      for (const way of [
        { ALLOW_PLAINTEXT: 'on' },
        { TRUST_PROXY: '10.0.0.2' },
        { TLS_CERT_PATH: file, TLS_KEY_PATH: file },
      ])
        expect(readConfig({ LISTEN_HOST: host, ...way }).listenHost).toBe(host);
    },
  );

  it.each(['localhost', '127.0.0.1', '127.8.8.8', '::1'])('allows plain text on %s', (host) => {
    expect(readConfig({ LISTEN_HOST: host }).listenHost).toBe(host);
  });

  it.each([
    ['1ms', 1],
    ['90s', 90_000],
    ['1h30m', 5_400_000],
    ['1.5h', 5_400_000],
    ['2d', 172_800_000],
    ['1m500ms', 60_500],
    ['3650d', 315_360_000_000],
  ])('reads the duration %s as %i ms', (text, milliseconds) => {
    expect(readConfig({ CLOCK_SKEW: text }).clockSkewMs).toBe(milliseconds);
  });

  it.each([
    ['WEBSOCKET_PORT', ['-1', '65536', '80a', '8.5', '1e3', ' 80', '0x50']],
    ['WEBSOCKET_PATH', ['ws/agent', '/', '/ws/agent/', '/a b', '/a?b', '/graphql']],
    ['WEBSOCKET_READ_BUFFER_SIZE', ['0', '16777217', 'x']],
    ['WEBSOCKET_WRITE_BUFFER_SIZE', ['0', '16777217', 'x']],
    ['AGENT_TLS_EXPORTER', ['on', 'REQUIRED']],
    ['DEPLOYMENT_ID', ['a b', 'ä', 'x'.repeat(256)]],
    ['SESSION_TIMEOUT', ['0s', '0.4ms', '24', '-1h', '1h 30m', 'h', '1w', '3651d', '1h30', '9e9d']],
    ['KEY_ROTATION_INTERVAL', ['0s', 'daily']],
    ['MESSAGE_TTL', ['0s', 'x']],
    ['MESSAGE_RETENTION', ['0s', '9']],
    ['AUDIT_RETENTION', ['0s', '9', 'ever']],
    ['AGENT_FRAMES_PER_SECOND', ['0', '1000001', '-1', '1.5']],
    ['AGENT_BYTES_PER_SECOND', ['1023', '1073741825']],
    ['CLOCK_SKEW', ['0s', '5']],
    [
      'EVENT_RETENTION',
      [
        '30d',
        '*=',
        '*=30',
        '=30d',
        '*=30d,',
        '*=30d,*=1d',
        '*=30d,alerts=1d',
        'threats=1d',
        '*=59m',
        '*=1d,logs=3651d',
      ],
    ],
    ['ENCRYPTION_ALGORITHM', ['aes-256-gcm', 'ChaCha20Poly1305']],
    ['MESSAGE_QUEUE_SIZE', ['0', '10000001', '1.5']],
    ['MESSAGE_RETRY_ATTEMPTS', ['-1', '1001']],
    ['DATABASE_URL', ['mysql://db', 'postgres:', 'db:5432', 'postgres://[']],
    [
      'REDIS_URL',
      [
        'http://cache',
        'cache',
        'redis://',
        'redis://cache:port',
        'redis://cache/first',
        'redis://cache?dbs=1',
        'redis://one,other',
        'redis+cluster://one,',
        'redis+cluster://one/1',
        'redis+cluster://one?db=1',
        'redis+sentinel://one',
        'redis+sentinel://one/fleet?db=first',
        'redis+ring://one',
      ],
    ],
    ['GRAPHQL_DOCUMENTS', ['on', 'some']],
    ['RATE_LIMIT_CONSUMER', ['0', '1.5', '1000000', 'on', '-1']],
    ['RATE_LIMIT_ADDRESS', ['0', 'none']],
    [
      'ALLOWED_ORIGINS',
      [
        '*',
        'console.example.com',
        'https://console.example.com/',
        'https://a.example,',
        'null',
        'ftp://a.example',
        'https://A.example',
      ],
    ],
    ['GRAPHQL_MAX_DEPTH', ['0', '1001', 'deep']],
    ['GRAPHQL_MAX_COST', ['0', '-1', 'much']],
    ['OTEL_EXPORTER_OTLP_ENDPOINT', ['collector:4318', 'grpc://collector']],
    [
      'ADMIN_TOKEN',
      ['short', 'fifteen-letters', 'sixteen letters, but spaces', 'sixteen=inside=it', 'sechzehn-Zeichen-ü'],
    ],
    ['DEFAULT_ORG', ['two words', 'x'.repeat(256), 'org/1']],
    ['AGENT_ENROLLMENT', ['yes', 'OPEN']],
    ['AGENT_KEY_CHANGE', ['approve']],
    ['AGENT_V1', ['true', 'ON']],
    [
      'TRUST_PROXY',
      ['1', 'proxy.example', '10.0.0.0/33', '10.0.0.0/', '10.0.0.0/8/8', '10.0.0.1,', '::/129', 'fe80::1%eth0'],
    ],
    ['ALLOW_PLAINTEXT', ['true', 'yes']],
    ['LOG_LEVEL', ['verbose', 'INFO']],
  ])('names %s when it is wrong', (name, values) => {
    for (const value of values) {
      const problems = problemsOf({ [name]: value });
      expect(problems, value).toHaveLength(1);
      expect(problems[0]).toMatch(new RegExp(`^${name}: (must|names) .+`));
    }
  });

  it('says of retention which kind is meant', () => {
    const problem = (value: string) => problemsOf({ EVENT_RETENTION: value }).join();
    expect(problem('*=30d,alerts=1d')).toBe('EVENT_RETENTION: names "alerts", which is no kind of event');
    expect(problem('*=30d,logs=1m')).toBe('EVENT_RETENTION: must keep "logs" from 1h to 3650d');
    expect(problem('logs=1h,logs=2h,*=1d')).toBe('EVENT_RETENTION: names "logs" twice');
    expect(problem('policies=1d,anomalies=1d,threats=1d,processes=1d,dependencies=1d,tests=1d,logs=1d')).toBe(
      'EVENT_RETENTION: must say how long all kinds are kept, say by *=30d: rollbacks, heartbeat, status',
    );
    expect(problemsOf({ EVENT_RETENTION: eventKinds.map((kind) => `${kind}=3650d`).join() })).toEqual([]);
  });

  it.each([
    ['TLS_CERT_PATH', 'TLS_KEY_PATH'],
    ['TLS_KEY_PATH', 'TLS_CERT_PATH'],
    ['AUTH_PRIVATE_KEY_PATH', 'AUTH_PUBLIC_KEY_PATH'],
    ['AUTH_PUBLIC_KEY_PATH', 'AUTH_PRIVATE_KEY_PATH'],
  ])('wants %s together with %s, and both to be there', (one, other) => {
    expect(problemsOf({ [one]: file })).toEqual([`${other}: must be set where ${one} is`]);
    expect(problemsOf({ [one]: join(directory, 'none.pem'), [other]: file })).toEqual([
      `${one}: names a file that cannot be read`,
    ]);
    expect(problemsOf({ [one]: file, [other]: file })).toEqual([]);
  });

  it('wants TLS where agents are to bring certificates, or to bind their handshakes to it', () => {
    expect(problemsOf({ AGENT_TLS_EXPORTER: 'required' })).toEqual([
      'TLS_CERT_PATH: must be set where AGENT_TLS_EXPORTER is required',
    ]);
    expect(problemsOf({ TLS_CLIENT_CA_PATH: file })).toEqual([
      'TLS_CERT_PATH: must be set where TLS_CLIENT_CA_PATH is',
    ]);
  });

  it('has several workers on a real database alone, with keys that all of them read', () => {
    const env = { WORKERS: '2', DATABASE_URL: 'postgres://db/aegis' };
    expect(readConfig(env).workers).toBe(2);
    expect(readConfig({ ...env, WORKERS: '128' }).workers).toBe(128);
    expect(readConfig({ WORKERS: '1', DATA_DIR: 'memory' }).workers).toBe(1);
    expect(problemsOf({ WORKERS: '2' })).toEqual([
      'WORKERS: must be 1 where DATABASE_URL is not set: the embedded database serves one process',
    ]);
    expect(problemsOf({ ...env, DATA_DIR: 'memory' })).toEqual([
      'WORKERS: must be 1 where DATA_DIR is memory: each worker would have a key of its own',
    ]);
    const keys = { AUTH_PRIVATE_KEY_PATH: file, AUTH_PUBLIC_KEY_PATH: file };
    expect(readConfig({ ...env, ...keys, DATA_DIR: 'memory' }).workers).toBe(2);
    for (const count of ['0', '129', 'two'])
      expect(problemsOf({ ...env, WORKERS: count })).toEqual([expect.stringMatching(/^WORKERS: must be /)]);
  });

  it('shows no value, which may be a secret', () => {
    const secrets = {
      ADMIN_TOKEN: 'hunter2',
      DATABASE_URL: 'mysql://user:hunter2@db',
      REDIS_URL: 'redis+sentinel://:hunter2@cache?sentinelPassword=hunter2',
    };
    expect(problemsOf(secrets)).toHaveLength(3);
    expect(problemsOf(secrets).join()).not.toContain('hunter2');
  });

  it('tells every problem in one error', () => {
    const env = { WEBSOCKET_PORT: 'x', MESSAGE_TTL: 'y', AGENT_V1: 'z', TLS_CERT_PATH: file };
    expect(problemsOf(env).map((problem) => problem.split(':')[0])).toEqual([
      'WEBSOCKET_PORT',
      'MESSAGE_TTL',
      'AGENT_V1',
      'TLS_KEY_PATH',
    ]);
    expect(() => readConfig(env)).toThrow(/not valid:\n {2}WEBSOCKET_PORT: .*\n {2}MESSAGE_TTL: .*\n {2}AGENT_V1: /);
  });

  it('wants documents and the mode that uses them together', () => {
    expect(problemsOf({ GRAPHQL_DOCUMENTS: 'only' })).toEqual([
      'GRAPHQL_DOCUMENTS_PATH: must be set where GRAPHQL_DOCUMENTS is not off',
    ]);
    for (const mode of [{}, { GRAPHQL_DOCUMENTS: 'off' }])
      expect(problemsOf({ GRAPHQL_DOCUMENTS_PATH: file, ...mode })).toEqual([
        'GRAPHQL_DOCUMENTS: must be allow or only where GRAPHQL_DOCUMENTS_PATH is set',
      ]);
  });

  it('makes the command line tell it and exit with 2, with nothing opened and no stack', () => {
    const { status, stderr, stdout } = spawnSync(process.execPath, ['--import', 'tsx', 'src/main.ts', 'serve'], {
      encoding: 'utf8',
      env: { PATH: process.env.PATH, WEBSOCKET_PORT: 'x', LOG_LEVEL: 'loud', DATA_DIR: join(directory, 'none') },
    });
    expect(status).toBe(2);
    expect(stdout).toBe('');
    expect(stderr).toBe(
      'The configuration is not valid:\n  WEBSOCKET_PORT: must be a whole number\n' +
        '  LOG_LEVEL: must be one of fatal, error, warn, info, debug, trace, silent\n',
    );
  });
});
