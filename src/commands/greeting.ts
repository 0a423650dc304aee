import { isLoopback } from '../addresses.ts';
import type { Config } from '../config.ts';
import { graphqlPath } from '../http/server.ts';

/** What is printed once the gateway is ready: where everything is, and the token that was made for this run. */
export function greeting(
  config: Config,
  { name, port, tookMs }: { readonly name: string; readonly port: number; readonly tookMs: number },
): string {
  const { http, ws } = addresses(config, port);
  const database = config.databaseUrl
    ? `Postgres at ${new URL(config.databaseUrl).host}`
    : config.dataDir === 'memory'
      ? 'embedded, in memory: nothing is kept'
      : `embedded, in ${config.dataDir}`;
  const lines = [
    `Aegis gateway ${name} is ready after ${(tookMs / 1_000).toFixed(1)} s`,
    `  Agents      ${ws}${config.agentPath}   (enrolment: ${config.enrollment})`,
    `  GraphQL     ${http}${graphqlPath}   (subscriptions: ${ws}${graphqlPath})`,
    ...(config.production ? [] : [`  GraphiQL    ${http}${graphqlPath} in a browser`]),
    `  REST        ${http}/api/v1   (described at ${http}/openapi.json)`,
    `  Health      ${http}/healthz, ${http}/readyz, ${http}/metrics`,
    ...(config.workers > 1 ? [`  Workers     ${config.workers}   (SIGUSR2 replaces them one by one)`] : []),
    `  Database    ${database}`,
  ];
  if (config.adminToken?.generated)
    lines.push(`  Token       ${config.adminToken.token}   (made for this run; set ADMIN_TOKEN to keep one)`);
  else if (!config.adminToken) lines.push('  Token       none: set ADMIN_TOKEN, or no consumer is let in');
  if (!config.tls && config.trustProxy.length === 0 && !isLoopback(config.listenHost))
    lines.push(
      '  Warning     plain text on more than the loopback address: whoever is on the path reads and writes all of it',
    );
  return `${lines.join('\n')}\n`;
}

function addresses({ listenHost, tls }: Config, port: number): { readonly http: string; readonly ws: string } {
  const host = listenHost.includes(':') ? `[${listenHost}]` : listenHost;
  const secure = tls ? 's' : '';
  return { http: `http${secure}://${host}:${port}`, ws: `ws${secure}://${host}:${port}` };
}
