import { randomBytes } from 'node:crypto';
import postgres from 'postgres';
import { readConfig } from '../../src/config.ts';
import { type Gateway, type GatewayOptions, startGateway } from '../../src/gateway.ts';
import { createLog } from '../../src/telemetry/log.ts';
import { createTestDatabase, type TestDatabase } from './databases.ts';

/** A real gateway on a port and a database of its own. */
export interface TestGateway {
  /** `http://127.0.0.1:<port>` */
  readonly url: string;
  /** `ws://127.0.0.1:<port>/ws/agent` */
  readonly agentUrl: string;
  /** `ws://127.0.0.1:<port>/graphql` */
  readonly subscriptionUrl: string;
  /** The ADMIN_TOKEN. */
  readonly token: string;
  readonly databaseUrl: string | null;
  /** Every SQL statement since the last `statements.length = 0`. */
  readonly statements: string[];
  /** A client of the gateway's database, to look and to meddle; a real Postgres only. */
  readonly sql: postgres.Sql;
  /** Asks REST, with the token unless `authorization` says otherwise (null: without any). */
  fetch(path: string, init?: RequestInit & { readonly authorization?: string | null }): Promise<Response>;
  /** What SIGHUP does. */
  reload(): void;
  /** Stops the gateway and starts another one on the same database and port, with these variables changed. */
  restart(env?: Readonly<Record<string, string>>): Promise<void>;
  stop(): Promise<void>;
}

export interface TestGatewayOptions extends GatewayOptions {
  /** Variables of the environment. */
  readonly env?: Readonly<Record<string, string>>;
  /** Use the embedded engine even where there is a real Postgres. */
  readonly embedded?: boolean;
  /** Share another test gateway's database. */
  readonly databaseUrl?: string;
}

/** Starts a gateway for a test. Always stop it. */
export async function startTestGateway(options: TestGatewayOptions = {}): Promise<TestGateway> {
  const database: TestDatabase = options.databaseUrl
    ? { databaseUrl: options.databaseUrl, dataDir: 'memory', drop: async () => {} }
    : await createTestDatabase(options.embedded ? { embedded: true } : {});
  const token = randomBytes(16).toString('hex');
  const statements: string[] = [];
  let port = 0;
  let gateway = await start({});

  async function start(env: Readonly<Record<string, string>>): Promise<Gateway> {
    const config = readConfig({
      WEBSOCKET_PORT: String(port),
      DATA_DIR: database.dataDir,
      ADMIN_TOKEN: token,
      LOG_LEVEL: process.env.TEST_LOG_LEVEL ?? 'fatal',
      ...(database.databaseUrl ? { DATABASE_URL: database.databaseUrl } : {}),
      ...options.env,
      ...env,
    });
    const started = await startGateway(config, createLog(config.logLevel), {
      ...options,
      onStatement: (text) => statements.push(text),
    });
    port = started.port;
    return started;
  }

  const url = `http://127.0.0.1:${port}`;
  const agentUrl = `ws://127.0.0.1:${port}/ws/agent`;
  const subscriptionUrl = `ws://127.0.0.1:${port}/graphql`;
  let sql: postgres.Sql | null = null;
  return {
    url,
    agentUrl,
    subscriptionUrl,
    token,
    databaseUrl: database.databaseUrl,
    statements,
    get sql() {
      if (!database.databaseUrl) throw new Error('this test looks into a real Postgres');
      sql ??= postgres(database.databaseUrl, { max: 2, onnotice: () => {} });
      return sql;
    },
    fetch(path, { authorization = `Bearer ${token}`, headers, ...init } = {}) {
      const merged = new Headers(headers);
      if (authorization !== null) merged.set('authorization', authorization);
      return fetch(new URL(path, url), { ...init, headers: merged });
    },
    reload: () => gateway.reload(),
    async restart(env = {}) {
      await gateway.stop();
      gateway = await start(env);
    },
    async stop() {
      await gateway.stop();
      await sql?.end();
      await database.drop();
    },
  };
}
