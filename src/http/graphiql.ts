import { createHash } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';

/** GraphiQL with everything that it needs in the page, so that it works without the internet. */

const defaultQuery = `# Put your token into the headers tab below: {"authorization": "Bearer <token>"}

query Fleet {
  gateway { version connectedAgents agentsAwaitingApproval }
  agents(first: 10) {
    nodes { agentId connected labels session { protocol connectedAt } }
  }
}

subscription Alarms {
  anomalies(minSeverity: MEDIUM) { agentId severity type message occurredAt }
}
`;

let rendering: Promise<{ readonly page: string; readonly policy: string }> | null = null;

/** Whether someone opens the address in a browser: only navigation asks for HTML, and it brings no bearer token. */
export function asksForGraphiql({ method, headers }: IncomingMessage): boolean {
  return method === 'GET' && headers.authorization === undefined && (headers.accept ?? '').includes('text/html');
}

export async function serveGraphiql(response: ServerResponse): Promise<void> {
  rendering ??= renderPage();
  const { page, policy } = await rendering;
  response.writeHead(200, {
    'content-type': 'text/html; charset=utf-8',
    'content-security-policy': policy,
  });
  response.end(page);
}

/** Loaded when it is first asked for: the page is 9 MB of script. */
async function renderPage() {
  const { renderGraphiQL } = await import('@graphql-yoga/render-graphiql');
  const page = renderGraphiQL({
    title: 'Aegis gateway',
    defaultQuery,
    headers: '{"authorization": "Bearer "}',
    defaultEditorToolsVisibility: 'headers',
    subscriptionsProtocol: 'SSE',
  });
  return { page, policy: policyOf(page) };
}

/** Lets the page's own scripts run, by their hashes, and whatever they bring; no other, and nothing from elsewhere. */
function policyOf(page: string): string {
  const scripts = [...page.matchAll(/<script>([\s\S]*?)<\/script>/g)].map(([, script = '']) => script);
  const hashes = scripts.map((script) => `'sha256-${createHash('sha256').update(script).digest('base64')}'`);
  return [
    "default-src 'none'",
    `script-src ${hashes.join(' ')}`,
    "style-src 'unsafe-inline'",
    "img-src 'self' data:",
    'font-src data:',
    'worker-src blob: data:',
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; ');
}
