import { isLoopback } from '../addresses.ts';
import type { Config } from '../config.ts';
import { type Gateway, startGateway } from '../gateway.ts';
import { graphqlPath } from '../http/server.ts';
import { createLog } from '../telemetry/log.ts';

/** After this a stop that hangs is cut short. */
const stopTimeoutMs = 9_500;

/** Runs the gateway until SIGTERM or SIGINT; a second one ends it at once. SIGHUP reloads certificates and keys and does nothing else. */
export async function serve(config: Config): Promise<number> {
  const startedMs = performance.now();
  const log = createLog(config.logLevel);
  // Before the start: a signal that comes meanwhile must not end the process with a database half open.
  const signalled = new Promise<string>((resolve) => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, resolve);
  });
  let running: Gateway | null = null;
  process.on('SIGHUP', () => running?.reload());
  const gateway = await startGateway(config, log);
  running = gateway;
  process.stdout.write(greeting(config, gateway, performance.now() - startedMs));

  process.stdout.write(`${await signalled}: stopping\n`);
  const timer = setTimeout(() => {
    log.fatal('the stop took too long and was cut short');
    process.exit(1);
  }, stopTimeoutMs);
  for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => process.exit(1));
  await gateway.stop();
  clearTimeout(timer);
  return 0;
}

function greeting(config: Config, gateway: Gateway, tookMs: number): string {
  const { http, ws, host } = addresses(config, gateway.port);
  const database = config.databaseUrl
    ? `Postgres at ${new URL(config.databaseUrl).host}`
    : config.dataDir === 'memory'
      ? 'embedded, in memory: nothing is kept'
      : `embedded, in ${config.dataDir}`;
  const lines = [
    `Aegis gateway ${gateway.instanceId} is ready after ${(tookMs / 1_000).toFixed(1)} s`,
    `  Agents      ${ws}${config.agentPath}   (enrolment: ${config.enrollment})`,
    `  GraphQL     ${http}${graphqlPath}   (subscriptions: ${ws}${graphqlPath})`,
    ...(config.production ? [] : [`  GraphiQL    ${http}${graphqlPath} in a browser`]),
    `  REST        ${http}/api/v1   (described at ${http}/openapi.json)`,
    `  Health      ${http}/healthz, ${http}/readyz, ${http}/metrics`,
    `  Database    ${database}`,
  ];
  if (config.adminToken?.generated)
    lines.push(`  Token       ${config.adminToken.token}   (made for this run; set ADMIN_TOKEN to keep one)`);
  else if (!config.adminToken) lines.push('  Token       none: set ADMIN_TOKEN, or no consumer is let in');
  if (!config.tls && config.trustProxy.length === 0 && !isLoopback(host))
    lines.push(
      '  Warning     plain text on more than the loopback address: whoever is on the path reads and writes all of it',
    );
  return `${lines.join('\n')}\n`;
}

function addresses(config: Config, port: number) {
  const host = config.listenHost.includes(':') ? `[${config.listenHost}]` : config.listenHost;
  const secure = config.tls ? 's' : '';
  return { http: `http${secure}://${host}:${port}`, ws: `ws${secure}://${host}:${port}`, host: config.listenHost };
}
