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

let rendering: Promise<string> | null = null;

/** Whether someone opens the address in a browser: only navigation asks for HTML, and it brings no bearer token. */
export function asksForGraphiql({ method, headers }: IncomingMessage): boolean {
  return method === 'GET' && headers.authorization === undefined && (headers.accept ?? '').includes('text/html');
}

export async function serveGraphiql(response: ServerResponse): Promise<void> {
  rendering ??= renderPage();
  const page = await rendering;
  response.writeHead(200, {
    'content-type': 'text/html; charset=utf-8',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'referrer-policy': 'no-referrer',
  });
  response.end(page);
}

/** Loaded when it is first asked for: the page is 9 MB of script. */
async function renderPage(): Promise<string> {
  const { renderGraphiQL } = await import('@graphql-yoga/render-graphiql');
  return renderGraphiQL({
    title: 'Aegis gateway',
    defaultQuery,
    headers: '{"authorization": "Bearer "}',
    defaultEditorToolsVisibility: 'headers',
    subscriptionsProtocol: 'SSE',
  });
}
