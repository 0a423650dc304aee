import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { getRequestListener } from '@hono/node-server';

/** The one listener: agents, GraphQL and REST, told apart by path. */
export interface HttpServer {
  /** Resolves with the port. Rejects with the system's error where the address cannot be had. */
  listen(): Promise<number>;
  /** Stops listening and ends what is left, after `timeoutMs` by force. */
  close(timeoutMs: number): Promise<void>;
}

export interface HttpRoutes {
  readonly agentPath: string;
  readonly agentUpgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void;
  readonly graphql: {
    handle(request: IncomingMessage, response: ServerResponse): void;
    upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  };
  readonly rest: (request: Request) => Promise<Response>;
}

export interface HttpOptions {
  readonly host: string;
  readonly port: number;
  readonly tls: { readonly certPath: string; readonly keyPath: string } | null;
  readonly readBufferBytes: number;
  readonly writeBufferBytes: number;
}

export const graphqlPath = '/graphql';

/** Below this a socket's buffers cost more than they save. */
const leastBufferBytes = 16 * 1024;
const headersTimeoutMs = 10_000;
const requestTimeoutMs = 30_000;
const keepAliveTimeoutMs = 65_000;
/** A reconnect storm must wait in the kernel, never be refused. */
const backlog = 4_096;

export function createHttpServer(routes: HttpRoutes, options: HttpOptions): HttpServer {
  const rest = getRequestListener(routes.rest, { overrideGlobalObjects: false });
  const server = create(options, (request, response) => {
    if (pathOf(request) === graphqlPath) routes.graphql.handle(request, response);
    else void rest(request, response);
  });
  server.headersTimeout = headersTimeoutMs;
  server.requestTimeout = requestTimeoutMs;
  server.keepAliveTimeout = keepAliveTimeoutMs;
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const path = pathOf(request);
    if (path === routes.agentPath) routes.agentUpgrade(request, socket, head);
    else if (path === graphqlPath) routes.graphql.upgrade(request, socket, head);
    else socket.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  });

  return {
    listen: () =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen({ host: options.host, port: options.port, backlog }, () => {
          server.off('error', reject);
          resolve(portOf(server));
        });
      }),
    close: (timeoutMs) =>
      new Promise((resolve) => {
        const force = setTimeout(() => server.closeAllConnections(), timeoutMs);
        server.close(() => {
          clearTimeout(force);
          resolve();
        });
        server.closeIdleConnections();
      }),
  };
}

function create(options: HttpOptions, listener: (request: IncomingMessage, response: ServerResponse) => void): Server {
  const highWaterMark = Math.max(options.readBufferBytes, options.writeBufferBytes, leastBufferBytes);
  if (!options.tls) return createServer({ highWaterMark }, listener);
  const { certPath, keyPath } = options.tls;
  const tls = { cert: readFileSync(certPath), key: readFileSync(keyPath), minVersion: 'TLSv1.2' as const };
  return createTlsServer({ ...tls, highWaterMark }, listener);
}

function pathOf(request: IncomingMessage): string {
  const url = request.url ?? '/';
  const query = url.indexOf('?');
  return query === -1 ? url : url.slice(0, query);
}

function portOf(server: Server): number {
  const address: AddressInfo | string | null = server.address();
  if (typeof address === 'object' && address) return address.port;
  throw new Error('the server listens on no port');
}
