import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inject } from 'vitest';
import { type GatewayProcess, prepareGateway } from '../faults/gateway-process.ts';
import { reapAtTheEnd } from '../faults/reaper.ts';
import { ensureBuilt } from '../support/built.ts';
import { createTestDatabase } from '../support/databases.ts';
import { type Haproxy, startHaproxy } from './haproxy.ts';

/** Gateways behind the balancer of `deploy/`, with what they need, as real processes on this machine. */
export interface Deployment {
  /** `https://127.0.0.1:<port>`, the balancer's. */
  readonly url: string;
  /** `wss://127.0.0.1:<port>/ws/agent` */
  readonly agentUrl: string;
  /** The ADMIN_TOKEN of all gateways. */
  readonly token: string;
  readonly databaseUrl: string;
  readonly gateways: readonly GatewayProcess[];
  readonly balancer: Haproxy;
  stop(): Promise<void>;
}

/** Starts that many gateways on one database and one Redis, with one key pair, behind the balancer; resolves when all serve. */
export async function startDeployment(options: {
  readonly gateways: number;
  /** A database of its own on the tests' Postgres where absent. */
  readonly databaseUrl?: string;
  /** Variables beside those that make them one. */
  readonly env?: Readonly<Record<string, string>>;
}): Promise<Deployment> {
  await ensureBuilt();
  const database = options.databaseUrl === undefined ? await createTestDatabase() : null;
  const databaseUrl = options.databaseUrl ?? database?.databaseUrl ?? null;
  const redisUrl = inject('redisUrl');
  if (databaseUrl === null || redisUrl === null) throw new Error('a deployment needs a real Postgres and a real Redis');
  const keys = makeKeyPair();
  const token = randomBytes(24).toString('base64url');
  const gateways = await Promise.all(
    Array.from({ length: options.gateways }, () =>
      prepareGateway({
        ...{ DATABASE_URL: databaseUrl, REDIS_URL: redisUrl, ADMIN_TOKEN: token, TRUST_PROXY: '127.0.0.1' },
        ...{ AUTH_PRIVATE_KEY_PATH: keys.privateKeyPath, AUTH_PUBLIC_KEY_PATH: keys.publicKeyPath },
        ...options.env,
      }),
    ),
  );
  for (const gateway of gateways) gateway.start();
  await Promise.all(gateways.map((gateway) => gateway.ready()));
  const balancer = await startHaproxy(gateways.map(({ url }) => new URL(url).host));
  const host = `127.0.0.1:${balancer.port}`;
  return {
    ...{ url: `https://${host}`, agentUrl: `wss://${host}/ws/agent`, token, databaseUrl, gateways, balancer },
    async stop() {
      await Promise.all(gateways.map((gateway) => gateway.drop()));
      await balancer.stop();
      await database?.drop();
      keys.remove();
    },
  };
}

function makeKeyPair() {
  const folder = mkdtempSync(join(tmpdir(), 'aegis-keys-'));
  const forget = reapAtTheEnd({ folder });
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const paths = { privateKeyPath: join(folder, 'private.pem'), publicKeyPath: join(folder, 'public.pem') };
  writeFileSync(paths.privateKeyPath, privateKey.export({ format: 'pem', type: 'pkcs8' }));
  writeFileSync(paths.publicKeyPath, publicKey.export({ format: 'pem', type: 'spki' }));
  return {
    ...paths,
    remove() {
      rmSync(folder, { recursive: true, force: true });
      forget();
    },
  };
}
