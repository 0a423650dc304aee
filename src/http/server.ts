import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';
import { getRequestListener } from '@hono/node-server';
import type { ErrorCode } from '../errors.ts';
import { refuseOnSocket, refuseRequest } from './refusal.ts';
import { createRequestOrigin, type RequestOrigin } from './request-origin.ts';
import { securityHeaders } from './security-headers.ts';
import { faultOfParser, faultOfRequest } from './sound-request.ts';
import type { Certificates } from './tls.ts';
import type { RefusedUpgrade, Upgrade } from './upgrade.ts';

/** The one listener: agents, GraphQL and REST, told apart by path. */
export interface HttpServer {
  /** Resolves with the port. Rejects with the system's error where the address cannot be had. */
  listen(): Promise<number>;
  /** Accepts nobody any more. Who has been accepted is served on, requests that are yet to come among theirs. */
  stopListening(): void;
  /** Stops listening and ends what is left, after `timeoutMs` by force. */
  close(timeoutMs: number): Promise<void>;
}

export interface HttpRoutes {
  readonly agentPath: string;
  readonly agentUpgrade: (upgrade: Upgrade) => void;
  readonly graphql: {
    handle(request: IncomingMessage, response: ServerResponse, origin: RequestOrigin): void;
    upgrade(upgrade: Upgrade): void;
  };
  readonly rest: (request: Request, origin: RequestOrigin) => Promise<Response>;
}

export interface HttpOptions {
  /** An address; or a descriptor of a socket that other processes listen on as well. */
  readonly listenOn: { readonly host: string; readonly port: number } | { readonly fd: number };
  /** Null: plain text. */
  readonly tls: Certificates | null;
  /** 48 bytes, the same for all processes that may resume each other's TLS sessions; random ones where absent. */
  readonly ticketKeys?: Buffer | undefined;
  /** Addresses and ranges of the proxies whose `X-Forwarded-For` is believed. */
  readonly trustProxy: readonly string[];
  readonly readBufferBytes: number;
  readonly writeBufferBytes: number;
  readonly patience?: Patience;
}

/** How long peers may take. */
export interface Patience {
  /** From the connection, or from the first byte of a request after another, to the end of the headers. */
  readonly headersMs: number;
  /** To the end of the body. */
  readonly requestMs: number;
  /** Between two requests. */
  readonly keepAliveMs: number;
  /** Without a byte going either way while an answer is under way: who reads nothing holds it in memory. */
  readonly idleMs: number;
}

const patienceInService: Patience = { headersMs: 10_000, requestMs: 30_000, keepAliveMs: 65_000, idleMs: 60_000 };

export const graphqlPath = '/graphql';

/** Below this a socket's buffers cost more than they save. */
const leastBufferBytes = 16 * 1024;
/** A reconnect storm must wait in the kernel, never be refused. */
const backlog = 16_384;

export function createHttpServer(routes: HttpRoutes, options: HttpOptions): HttpServer {
  const { headersMs, requestMs, keepAliveMs, idleMs } = options.patience ?? patienceInService;
  const originOf = createRequestOrigin(options.trustProxy);
  const commonHeaders = Object.entries(securityHeaders({ isTls: options.tls !== null }));
  const origins = new WeakMap<object, RequestOrigin>();
  const rest = getRequestListener((request, { incoming }) => routes.rest(request, originTaken(incoming)), {
    overrideGlobalObjects: false,
  });
  /** When connections were accepted that have not brought a request yet. */
  const acceptedAtMs = new WeakMap<object, number>();
  /** The answer that is under way on a connection. */
  const answers = new WeakMap<object, ServerResponse>();

  const server = create(
    options,
    {
      handshakeTimeout: headersMs,
      requestTimeout: requestMs,
      connectionsCheckingInterval: headersMs / 10,
      requireHostHeader: false,
    },
    take,
  );
  server.headersTimeout = headersMs;
  server.keepAliveTimeout = keepAliveMs;
  server.timeout = idleMs;
  // Counted below, where one too many is refused.
  server.maxHeadersCount = 0;
  server.on(options.tls ? 'secureConnection' : 'connection', (socket: Duplex) =>
    acceptedAtMs.set(socket, performance.now()),
  );
  server.on('upgrade', takeUpgrade);
  // Whatever is expected of us, the answer tells more than 417 would (RFC 9110, section 10.1.1).
  server.on('checkExpectation', take);
  server.on('connect', (_request: IncomingMessage, socket: Duplex) =>
    refuseOnSocket(socket, 'METHOD_NOT_ALLOWED', { headers: Object.fromEntries(commonHeaders) }),
  );
  server.on('clientError', refuseBadRequest);

  function take(request: IncomingMessage, response: ServerResponse): void {
    const origin = originOf(request);
    acceptedAtMs.delete(request.socket);
    answers.set(request.socket, response);
    for (const [name, value] of commonHeaders) response.setHeader(name, value);
    response.setHeader('x-request-id', origin.requestId);
    origins.set(request, origin);
    const fault = faultOfRequest(request);
    if (fault) refuseRequest(response, fault);
    else if (pathOf(request) === graphqlPath) routes.graphql.handle(request, response, origin);
    else void rest(request, response);
  }

  function originTaken(request: object): RequestOrigin {
    const origin = origins.get(request);
    if (!origin) throw new Error('a request that was not taken here');
    return origin;
  }

  function takeUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const origin = originOf(request);
    const refuse = (code: ErrorCode, answer: RefusedUpgrade = {}) =>
      refuseOnSocket(socket, code, {
        ...answer,
        headers: { ...Object.fromEntries(commonHeaders), 'x-request-id': origin.requestId },
      });
    const waitedMs = performance.now() - (acceptedAtMs.get(socket) ?? performance.now());
    const upgrade: Upgrade = { request, socket, head, origin, waitedMs, refuse };
    const fault = faultOfRequest(request);
    const path = pathOf(request);
    if (fault) refuse(fault);
    else if (path === routes.agentPath) takeAgent(upgrade);
    else if (path === graphqlPath) routes.graphql.upgrade(upgrade);
    else refuse('NOT_FOUND');
  }

  function takeAgent(upgrade: Upgrade): void {
    if (options.tls?.asksClients && !isCertified(upgrade.socket)) upgrade.refuse('CLIENT_CERTIFICATE_REQUIRED');
    else routes.agentUpgrade(upgrade);
  }

  /** What never became a request: bytes that are no HTTP, too many of them, too late. */
  function refuseBadRequest(error: Error & { readonly code?: string }, socket: Duplex): void {
    const code = faultOfParser(error);
    const answer = answers.get(socket);
    const isMidAnswer = answer?.headersSent === true && !answer.writableFinished;
    if (code === null || isMidAnswer || !socket.writable) socket.destroy();
    else refuseOnSocket(socket, code, { headers: Object.fromEntries(commonHeaders) });
  }

  let closed: Promise<void> | null = null;
  function stopListening(): Promise<void> {
    closed ??= new Promise((resolve) => server.close(() => resolve()));
    return closed;
  }

  return {
    listen: () =>
      new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen({ ...options.listenOn, backlog }, () => {
          server.off('error', reject);
          resolve(portOf(server));
        });
      }),
    stopListening: () => void stopListening(),
    async close(timeoutMs) {
      const force = setTimeout(() => server.closeAllConnections(), timeoutMs);
      const isClosed = stopListening();
      server.closeIdleConnections();
      await isClosed;
      clearTimeout(force);
    },
  };
}

function create(
  options: HttpOptions,
  timing: {
    readonly handshakeTimeout: number;
    readonly requestTimeout: number;
    readonly connectionsCheckingInterval: number;
    readonly requireHostHeader: false;
  },
  listener: (request: IncomingMessage, response: ServerResponse) => void,
): Server {
  const highWaterMark = Math.max(options.readBufferBytes, options.writeBufferBytes, leastBufferBytes);
  const { tls } = options;
  if (!tls) return createServer({ ...timing, highWaterMark }, listener);
  // Who brings no certificate may still be a consumer: it is on the agents' path that one is demanded.
  const clients = { requestCert: tls.asksClients, rejectUnauthorized: false };
  const tickets = options.ticketKeys ? { ticketKeys: options.ticketKeys } : {};
  const server = createTlsServer({ ...timing, ...clients, ...tickets, ...tls.context, highWaterMark }, listener);
  tls.onChange((context) => server.setSecureContext(context));
  return server;
}

/** Whether the peer brought a certificate of the CA that clients need. */
function isCertified(socket: Duplex): boolean {
  return socket instanceof TLSSocket && socket.authorized;
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
