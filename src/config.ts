import { randomBytes } from 'node:crypto';
import { accessSync, constants } from 'node:fs';
import { z } from 'zod';
import { isAddressRange, isLoopback } from './addresses.ts';
import { type EventKind, eventKinds } from './agent-gateway/wire/channels.ts';
import { parseRedisUrl, type RedisTarget } from './redis/target.ts';

/**
 * The environment, read once and validated together. This is the only reader of `process.env`; names, defaults and
 * meaning are those of `docs/CONFIGURATION.md`.
 */
export interface Config {
  readonly production: boolean;
  readonly listenHost: string;
  readonly listenPort: number;
  /** Processes that serve; 1 is this one. */
  readonly workers: number;
  readonly agentPath: string;
  readonly socketReadBufferBytes: number;
  readonly socketWriteBufferBytes: number;
  readonly tls: { readonly certPath: string; readonly keyPath: string; readonly clientCaPath: string | null } | null;
  /** Addresses and ranges of the proxies that are believed in what they say of the client. */
  readonly trustProxy: readonly string[];
  readonly dataDir: string;
  readonly databaseUrl: string | null;
  readonly redis: RedisTarget | null;
  readonly identity: { readonly privateKeyPath: string; readonly publicKeyPath: string } | null;
  readonly adminToken: AdminToken;
  /** Whose JSON Web Tokens consumers may bring. */
  readonly tokenIssuer: {
    readonly issuer: string;
    readonly audience: string;
    readonly algorithms: readonly string[];
    readonly keys: { readonly publicKeyPath: string } | { readonly jwksUrl: string };
  } | null;
  readonly defaultOrg: string;
  readonly enrollment: 'open' | 'token' | 'approval' | 'closed';
  readonly keyChange: 'quarantine' | 'replace' | 'refuse';
  readonly agentV1: boolean;
  readonly deploymentId: string;
  readonly tlsExporter: 'off' | 'required';
  readonly sessionTimeoutMs: number;
  readonly keyRotationIntervalMs: number;
  readonly clockSkewMs: number;
  /** What one agent may send in the long run. */
  readonly agentAllowance: { readonly framesPerSecond: number; readonly bytesPerSecond: number };
  readonly messageQueueSize: number;
  readonly messageRetryAttempts: number;
  readonly messageTtlMs: number;
  readonly messageRetentionMs: number;
  /** How long audit entries are kept; null: for ever. */
  readonly auditRetentionMs: number | null;
  /** What one GraphQL operation may ask for: levels of fields, and objects in the answer. */
  readonly graphqlLimits: { readonly maxDepth: number; readonly maxCost: number };
  /** Which documents of GraphQL run, and the manifest of those that are known by an id. */
  readonly documents: { readonly mode: 'off' | 'allow' | 'only'; readonly path: string | null };
  /** Requests a second of one consumer and of one address; null: any number. */
  readonly rateLimits: { readonly consumerPerSecond: number | null; readonly addressPerSecond: number | null };
  /** Sockets of one address, and sockets and subscriptions of one consumer, at once; null: any number. */
  readonly streamLimit: number | null;
  /** Origins of other hosts whose pages may use GraphQL. */
  readonly allowedOrigins: readonly string[];
  /** Where traces are sent, by OTLP over HTTP. */
  readonly otlpEndpoint: string | null;
  /** How long events of each kind are kept. */
  readonly eventRetentionMs: ReadonlyMap<EventKind, number>;
  readonly logLevel: (typeof logLevels)[number];
}

/** `generated` tells that the token was made for this run and must be shown to the operator; null means: none, and none made. */
export type AdminToken = { readonly token: string; readonly generated: boolean } | null;

/** Every variable that is wrong, each with its reason. The command line prints it and exits with 2. */
export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`The configuration is not valid:\n${problems.map((problem) => `  ${problem}`).join('\n')}`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

const logLevels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;
/** Times far beyond this are no dates any more. */
const maxDurationMs = 3_650 * 86_400_000;
const unitMs: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `90s`, `5m`, `1h30m`, `250ms`: the durations of the request's environment. Null for what is none. */
function durationMs(text: string): number | null {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)];
  const totalMs = parts.reduce((sum, [, amount, unit]) => sum + Number(amount) * (unitMs[unit ?? ''] ?? Number.NaN), 0);
  return parts.length > 0 && parts.map(([part]) => part).join('') === text ? totalMs : null;
}

const duration = z.string().transform((text, context) => {
  const totalMs = durationMs(text);
  if (totalMs !== null && totalMs >= 1 && totalMs <= maxDurationMs) return Math.round(totalMs);
  context.addIssue(totalMs === null ? 'must be a duration such as 30s, 5m or 24h' : 'must be from 1ms to 3650d');
  return z.NEVER;
});

const defaultRetention = 'anomalies=90d,threats=365d,heartbeat=1d,*=30d';
/** Partitions are an hour wide at the least. */
const minRetentionMs = 3_600_000;

/** `threats=365d,*=30d`: how long events of each kind are kept; `*` is every kind that has no entry of its own. */
const retention = z.string().transform((text, context) => {
  const given = new Map<string, number>();
  for (const entry of text.split(',')) {
    const [, name = '', length = ''] = /^\s*([^\s=]+)\s*=\s*([^\s=]+)\s*$/.exec(entry) ?? [];
    const keptMs = durationMs(length);
    if (name === '' || keptMs === null)
      context.addIssue('must be made of kinds and durations, such as threats=90d,*=30d');
    else if (name !== '*' && !eventKinds.some((kind) => kind === name))
      context.addIssue(`names "${name}", which is no kind of event`);
    else if (given.has(name)) context.addIssue(`names "${name}" twice`);
    else if (keptMs < minRetentionMs || keptMs > maxDurationMs)
      context.addIssue(`must keep "${name}" from 1h to 3650d`);
    given.set(name, keptMs ?? 0);
  }
  const unnamed = eventKinds.filter((kind) => !given.has(kind) && !given.has('*'));
  if (context.issues.length === 0 && unnamed.length > 0)
    context.addIssue(`must say how long all kinds are kept, say by *=30d: ${unnamed.join(', ')}`);
  return new Map(eventKinds.map((kind) => [kind, given.get(kind) ?? given.get('*') ?? 0]));
});

function integer(least: number, most: number) {
  return z
    .string()
    .regex(/^\d+$/, 'must be a whole number')
    .transform(Number)
    .refine((value) => value >= least && value <= most, `must be from ${least} to ${most}`);
}

/** Requests a second; null: any number. */
const rate = z
  .string()
  .regex(/^(off|[1-9]\d{0,5})$/, 'must be a whole number from 1 to 999999, or off')
  .transform((text) => (text === 'off' ? null : Number(text)));

function url(...schemes: string[]) {
  return z
    .string()
    .refine(
      (text) => schemes.some((scheme) => text.startsWith(`${scheme}://`)) && URL.canParse(text),
      `must be a URL that starts with ${schemes.map((scheme) => `${scheme}://`).join(' or ')}`,
    );
}

const redisUrl = z.string().transform((text, context): RedisTarget => {
  const target = parseRedisUrl(text);
  if (typeof target === 'object') return target;
  context.addIssue(target);
  return z.NEVER;
});

function oneOf<const Values extends readonly [string, ...string[]]>(...values: Values) {
  return z.enum(values, `must be one of ${values.join(', ')}`);
}

/** Those of JSON Web Tokens that need no secret of ours: with a shared one, whoever checks a token could make one. */
const tokenAlgorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
];

const readableFile = z.string().refine(isReadable, 'names a file that cannot be read');

const environment = z.object({
  NODE_ENV: z.string().optional(),
  WEBSOCKET_PORT: integer(0, 65_535).prefault('8080'),
  WORKERS: integer(1, 128).prefault('1'),
  WEBSOCKET_PATH: z
    .string()
    .regex(/^\/[\w./-]*[\w-]$/, 'must be a path such as /ws/agent')
    .refine((path) => path !== '/graphql', 'must not be /graphql, which is taken')
    .default('/ws/agent'),
  WEBSOCKET_READ_BUFFER_SIZE: integer(1, 16_777_216).prefault('1024'),
  WEBSOCKET_WRITE_BUFFER_SIZE: integer(1, 16_777_216).prefault('1024'),
  SESSION_TIMEOUT: duration.prefault('24h'),
  ENCRYPTION_ALGORITHM: z.literal('chacha20poly1305', 'must be chacha20poly1305').default('chacha20poly1305'),
  KEY_ROTATION_INTERVAL: duration.prefault('24h'),
  MESSAGE_QUEUE_SIZE: integer(1, 10_000_000).prefault('10000'),
  MESSAGE_RETRY_ATTEMPTS: integer(0, 1_000).prefault('3'),
  MESSAGE_TTL: duration.prefault('1h'),
  MESSAGE_RETENTION: duration.prefault('7d'),
  AUDIT_RETENTION: duration.nullable().default(null),
  EVENT_RETENTION: retention.prefault(defaultRetention),
  DATABASE_URL: url('postgres', 'postgresql').optional(),
  REDIS_URL: redisUrl.optional(),
  AUTH_PRIVATE_KEY_PATH: readableFile.optional(),
  AUTH_PUBLIC_KEY_PATH: readableFile.optional(),
  LISTEN_HOST: z.string().optional(),
  TLS_CERT_PATH: readableFile.optional(),
  TLS_KEY_PATH: readableFile.optional(),
  TLS_CLIENT_CA_PATH: readableFile.optional(),
  TRUST_PROXY: z
    .string()
    .transform((text) => text.split(',').map((range) => range.trim()))
    .refine(
      (ranges) => ranges.every(isAddressRange),
      'must be addresses or ranges such as 10.0.0.0/8, with commas between',
    )
    .optional(),
  ALLOW_PLAINTEXT: oneOf('on', 'off').default('off'),
  DATA_DIR: z.string().default('./data'),
  ADMIN_TOKEN: z
    .string()
    .min(16, 'must have at least 16 characters')
    .regex(/^[\w.~+/-]+=*$/, 'must be made of letters, digits and - . _ ~ + /, or no Authorization header can carry it')
    .optional(),
  JWT_PUBLIC_KEY_PATH: readableFile.optional(),
  JWT_JWKS_URL: url('https', 'http')
    .refine(
      (text) =>
        !URL.canParse(text) || text.startsWith('https:') || isLoopback(new URL(text).hostname.replaceAll(/[[\]]/g, '')),
      'must be https, or who is on the path names the keys; http is for loopback addresses',
    )
    .optional(),
  JWT_ISSUER: z.string().optional(),
  JWT_AUDIENCE: z.string().optional(),
  JWT_ALGORITHMS: z
    .string()
    .transform((text) => text.split(',').map((name) => name.trim()))
    .refine(
      (names) => names.every((name) => tokenAlgorithms.includes(name)),
      `must be some of ${tokenAlgorithms.join(', ')}, with commas between`,
    )
    .prefault('RS256,PS256,ES256,EdDSA'),
  DEFAULT_ORG: z
    .string()
    .regex(/^[\w.-]{1,255}$/, 'must be 1 to 255 letters, digits, dots, dashes or underscores')
    .default('default-org'),
  AGENT_ENROLLMENT: oneOf('open', 'token', 'approval', 'closed').optional(),
  AGENT_KEY_CHANGE: oneOf('quarantine', 'replace', 'refuse').optional(),
  AGENT_V1: oneOf('on', 'off').default('on'),
  AGENT_TLS_EXPORTER: oneOf('off', 'required').default('off'),
  DEPLOYMENT_ID: z
    .string()
    .regex(/^[\w.-]{1,255}$/, 'must be 1 to 255 letters, digits, dots, dashes or underscores')
    .default(''),
  CLOCK_SKEW: duration.prefault('5m'),
  GRAPHQL_MAX_DEPTH: integer(1, 1_000).prefault('15'),
  GRAPHQL_MAX_COST: integer(1, 1_000_000_000).prefault('50000'),
  GRAPHQL_DOCUMENTS: oneOf('off', 'allow', 'only').default('off'),
  GRAPHQL_DOCUMENTS_PATH: readableFile.optional(),
  RATE_LIMIT_CONSUMER: rate.prefault('5000'),
  RATE_LIMIT_ADDRESS: rate.prefault('5000'),
  STREAM_LIMIT: rate.prefault('10000'),
  ALLOWED_ORIGINS: z
    .string()
    .transform((text) => text.split(',').map((origin) => origin.trim()))
    .refine(
      (origins) => origins.every(isOrigin),
      'must be origins such as https://console.example.com, with commas between',
    )
    .optional(),
  AGENT_FRAMES_PER_SECOND: integer(1, 1_000_000).prefault('2000'),
  AGENT_BYTES_PER_SECOND: integer(1_024, 1_073_741_824).prefault('4194304'),
  OTEL_EXPORTER_OTLP_ENDPOINT: url('http', 'https').optional(),
  LOG_LEVEL: oneOf(...logLevels).default('info'),
});

/** Every variable that is read. */
export const variableNames: readonly string[] = Object.keys(environment.shape);

/**
 * Reads the configuration. An empty variable counts as absent.
 * Throws a ConfigError that names every variable that is wrong.
 */
export function readConfig(env: Readonly<Record<string, string | undefined>> = process.env): Config {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ''));
  const parsed = environment.safeParse(given);
  const problems = [
    ...(parsed.error?.issues ?? []).map((issue) => `${issue.path.join('.')}: ${issue.message}`),
    ...pairProblems(given, 'TLS_CERT_PATH', 'TLS_KEY_PATH'),
    ...pairProblems(given, 'AUTH_PRIVATE_KEY_PATH', 'AUTH_PUBLIC_KEY_PATH'),
    ...tlsProblems(given),
    ...documentsProblems(given),
    ...plaintextProblems(given),
    ...workersProblems(given),
    ...tokenProblems(given),
  ];
  if (!parsed.success || problems.length > 0) throw new ConfigError(problems);

  const values = parsed.data;
  const production = values.NODE_ENV === 'production';
  const tls =
    values.TLS_CERT_PATH && values.TLS_KEY_PATH
      ? {
          certPath: values.TLS_CERT_PATH,
          keyPath: values.TLS_KEY_PATH,
          clientCaPath: values.TLS_CLIENT_CA_PATH ?? null,
        }
      : null;
  const identity =
    values.AUTH_PRIVATE_KEY_PATH && values.AUTH_PUBLIC_KEY_PATH
      ? { privateKeyPath: values.AUTH_PRIVATE_KEY_PATH, publicKeyPath: values.AUTH_PUBLIC_KEY_PATH }
      : null;
  return {
    production,
    listenHost: values.LISTEN_HOST ?? (tls ? '0.0.0.0' : '127.0.0.1'),
    listenPort: values.WEBSOCKET_PORT,
    workers: values.WORKERS,
    agentPath: values.WEBSOCKET_PATH,
    socketReadBufferBytes: values.WEBSOCKET_READ_BUFFER_SIZE,
    socketWriteBufferBytes: values.WEBSOCKET_WRITE_BUFFER_SIZE,
    tls,
    trustProxy: values.TRUST_PROXY ?? [],
    dataDir: values.DATA_DIR,
    databaseUrl: values.DATABASE_URL ?? null,
    redis: values.REDIS_URL ?? null,
    identity,
    adminToken: adminToken(values.ADMIN_TOKEN, production),
    tokenIssuer: tokenIssuer(values),
    defaultOrg: values.DEFAULT_ORG,
    enrollment: values.AGENT_ENROLLMENT ?? (production ? 'approval' : 'open'),
    keyChange: values.AGENT_KEY_CHANGE ?? (production ? 'quarantine' : 'replace'),
    agentV1: values.AGENT_V1 === 'on',
    deploymentId: values.DEPLOYMENT_ID,
    tlsExporter: values.AGENT_TLS_EXPORTER,
    sessionTimeoutMs: values.SESSION_TIMEOUT,
    keyRotationIntervalMs: values.KEY_ROTATION_INTERVAL,
    clockSkewMs: values.CLOCK_SKEW,
    agentAllowance: {
      framesPerSecond: values.AGENT_FRAMES_PER_SECOND,
      bytesPerSecond: values.AGENT_BYTES_PER_SECOND,
    },
    messageQueueSize: values.MESSAGE_QUEUE_SIZE,
    messageRetryAttempts: values.MESSAGE_RETRY_ATTEMPTS,
    messageTtlMs: values.MESSAGE_TTL,
    messageRetentionMs: values.MESSAGE_RETENTION,
    auditRetentionMs: values.AUDIT_RETENTION,
    graphqlLimits: { maxDepth: values.GRAPHQL_MAX_DEPTH, maxCost: values.GRAPHQL_MAX_COST },
    documents: { mode: values.GRAPHQL_DOCUMENTS, path: values.GRAPHQL_DOCUMENTS_PATH ?? null },
    rateLimits: { consumerPerSecond: values.RATE_LIMIT_CONSUMER, addressPerSecond: values.RATE_LIMIT_ADDRESS },
    streamLimit: values.STREAM_LIMIT,
    allowedOrigins: values.ALLOWED_ORIGINS ?? [],
    otlpEndpoint: values.OTEL_EXPORTER_OTLP_ENDPOINT ?? null,
    eventRetentionMs: values.EVENT_RETENTION,
    logLevel: values.LOG_LEVEL,
  };
}

/** As browsers write it: scheme, host and port where it is not the scheme's own; neither path nor wildcard. */
function isOrigin(text: string): boolean {
  return /^https?:/.test(text) && URL.canParse(text) && new URL(text).origin === text;
}

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK);
    return true;
  } catch {
    return false;
  }
}

/** What needs TLS to end here. */
function tlsProblems(env: Readonly<Record<string, string | undefined>>): string[] {
  if (env.TLS_CERT_PATH) return [];
  return [
    ...(env.TLS_CLIENT_CA_PATH ? ['TLS_CERT_PATH: must be set where TLS_CLIENT_CA_PATH is'] : []),
    ...(env.AGENT_TLS_EXPORTER === 'required'
      ? ['TLS_CERT_PATH: must be set where AGENT_TLS_EXPORTER is required']
      : []),
  ];
}

/** Ids are known from a manifest alone; a manifest that nothing reads was meant for something. */
function documentsProblems(env: Readonly<Record<string, string | undefined>>): string[] {
  const isOn = env.GRAPHQL_DOCUMENTS === 'allow' || env.GRAPHQL_DOCUMENTS === 'only';
  if (isOn && !env.GRAPHQL_DOCUMENTS_PATH)
    return ['GRAPHQL_DOCUMENTS_PATH: must be set where GRAPHQL_DOCUMENTS is not off'];
  if (!isOn && env.GRAPHQL_DOCUMENTS_PATH)
    return ['GRAPHQL_DOCUMENTS: must be allow or only where GRAPHQL_DOCUMENTS_PATH is set'];
  return [];
}

/** v1 is protected by TLS alone, and so is every token: plain text beyond this machine is nobody's default. */
function plaintextProblems(env: Readonly<Record<string, string | undefined>>): string[] {
  const { LISTEN_HOST: host = '127.0.0.1', ALLOW_PLAINTEXT: allowed } = env;
  if (isLoopback(host) || env.TLS_CERT_PATH || env.TLS_KEY_PATH || env.TRUST_PROXY || allowed === 'on') return [];
  return [
    'LISTEN_HOST: must be a loopback address where there is no TLS: set TLS_CERT_PATH and TLS_KEY_PATH, or TRUST_PROXY ' +
      'where a proxy in front has TLS, or ALLOW_PLAINTEXT=on',
  ];
}

/** What several processes must have in common and one process may have for itself. */
function workersProblems(env: Readonly<Record<string, string | undefined>>): string[] {
  if (!(Number(env.WORKERS ?? 1) > 1)) return [];
  return [
    ...(env.DATABASE_URL
      ? []
      : ['WORKERS: must be 1 where DATABASE_URL is not set: the embedded database serves one process']),
    ...(env.DATA_DIR === 'memory' && !env.AUTH_PRIVATE_KEY_PATH
      ? ['WORKERS: must be 1 where DATA_DIR is memory: each worker would have a key of its own']
      : []),
  ];
}

/** A token that says neither by whom nor for whom it was made could have been made for somebody else. */
function tokenProblems(env: Readonly<Record<string, string | undefined>>): string[] {
  const { JWT_PUBLIC_KEY_PATH: path, JWT_JWKS_URL: jwksUrl } = env;
  if (path && jwksUrl) return ['JWT_JWKS_URL: must not be set where JWT_PUBLIC_KEY_PATH is'];
  const named = ['JWT_ISSUER', 'JWT_AUDIENCE'];
  if (path || jwksUrl)
    return named.filter((name) => !env[name]).map((name) => `${name}: must be set where there is a key for JWTs`);
  return named
    .filter((name) => env[name])
    .map((name) => `${name}: needs JWT_PUBLIC_KEY_PATH or JWT_JWKS_URL beside it`);
}

function tokenIssuer(values: z.infer<typeof environment>): Config['tokenIssuer'] {
  const {
    JWT_PUBLIC_KEY_PATH: publicKeyPath,
    JWT_JWKS_URL: jwksUrl,
    JWT_ISSUER: issuer,
    JWT_AUDIENCE: audience,
  } = values;
  const keys = publicKeyPath ? { publicKeyPath } : jwksUrl ? { jwksUrl } : null;
  return keys && issuer && audience ? { issuer, audience, algorithms: values.JWT_ALGORITHMS, keys } : null;
}

function adminToken(given: string | undefined, production: boolean): AdminToken {
  if (given) return { token: given, generated: false };
  return production ? null : { token: randomBytes(24).toString('base64url'), generated: true };
}

function pairProblems(env: Readonly<Record<string, unknown>>, one: string, other: string): string[] {
  if (one in env === other in env) return [];
  const [missing, present] = one in env ? [other, one] : [one, other];
  return [`${missing}: must be set where ${present} is`];
}
