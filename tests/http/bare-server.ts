import { createHttpServer, type HttpOptions, type HttpRoutes, type HttpServer } from '../../src/http/server.ts';

/** The listener alone, in front of routes of a test's own. */
export interface BareServer {
  readonly url: string;
  readonly server: HttpServer;
}

export async function startBareServer(
  routes: Partial<HttpRoutes>,
  options: Partial<HttpOptions> = {},
): Promise<BareServer> {
  const server = createHttpServer(
    {
      agentPath: '/ws/agent',
      agentUpgrade: ({ refuse }) => refuse('UNAVAILABLE'),
      graphql: { handle: (_request, response) => void response.end(), upgrade: ({ refuse }) => refuse('UNAVAILABLE') },
      rest: async (request) => new Response(`${new URL(request.url).pathname} got ${await request.text()}`),
      ...routes,
    },
    {
      ...{
        listenOn: { host: '127.0.0.1', port: 0 },
        tls: null,
        trustProxy: [],
        readBufferBytes: 1_024,
        writeBufferBytes: 1_024,
      },
      ...options,
    },
  );
  return { url: `http://127.0.0.1:${await server.listen()}`, server };
}
