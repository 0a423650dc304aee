import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ExecutionResult, GraphQLSchema } from 'graphql';
import type { Authenticate } from '../access/authenticate.ts';
import type { Consumer } from '../access/consumer.ts';
import type { RateLimits } from '../access/rate-limits.ts';
import type { Validity } from '../access/validity.ts';
import { type Clock, systemClock } from '../clock.ts';
import { AegisError } from '../errors.ts';
import { createErrorPresenter } from '../schema/errors.ts';
import type { StreamPlace } from '../schema/streams.ts';
import type { EndedOperation } from '../telemetry/tracing.ts';
import { createActiveSubscriptions, type Results } from './active-subscriptions.ts';
import type { Documents } from './documents.ts';
import { streamEvents } from './event-stream.ts';
import { asksForGraphiql, serveGraphiql } from './graphiql.ts';
import { createExecution, eventStreamType, type OperationLimits } from './graphql-execution.ts';
import { createGraphqlSockets } from './graphql-socket.ts';
import { createOrigins } from './origins.ts';
import type { LogRequestError, RequestOrigin } from './request-origin.ts';
import { createStreamQuotas } from './stream-quotas.ts';
import type { Upgrade } from './upgrade.ts';

/** GraphQL for consumers. Whoever owns the server routes requests and upgrades for its path here. */
export interface GraphqlEndpoint {
  /** Answers a request; resolves when the answer has been given, that of a subscription when it has ended. Never rejects. */
  handle(request: IncomingMessage, response: ServerResponse, origin: RequestOrigin): Promise<void>;

  /** Takes an upgrade to WebSocket, or refuses it with an HTTP status. */
  upgrade(upgrade: Upgrade): void;

  /** Ends every stream and socket so that clients come back elsewhere; resolves when all has been let go of. */
  close(): Promise<void>;

  /** Subscriptions that run now, over all transports. */
  activeSubscriptions(): number;
}

const closeGraceMs = 2_000;

export function createGraphqlEndpoint(options: {
  readonly schema: GraphQLSchema;
  readonly authenticate: Authenticate;
  /** Tells when credentials end. */
  readonly watch: Validity['watch'];
  /** What the schema's resolvers are given: a new one for each operation. */
  readonly contextFor: (consumer: Consumer) => object;
  /** Whether browsers are served GraphiQL; the page itself is open. */
  readonly graphiql: boolean;
  /** Whether the schema tells of itself, and errors suggest what may have been meant. */
  readonly introspection: boolean;
  readonly limits: OperationLimits;
  readonly documents: Documents;
  readonly rateLimits: RateLimits;
  /** So many sockets of one address, and sockets and subscriptions of one consumer, at once; null: any number. */
  readonly streamLimit: number | null;
  /** Other hosts' pages that may use GraphQL: origins such as `https://console.example.com`. */
  readonly allowedOrigins: readonly string[];
  readonly logError: LogRequestError;
  readonly onOperation: (operation: EndedOperation) => void;
  /** For pings and patience. */
  readonly clock?: Clock;
}): GraphqlEndpoint {
  const { authenticate, watch, rateLimits, documents, graphiql, logError, clock = systemClock } = options;
  const origins = createOrigins(options.allowedOrigins);
  const subscriptions = createActiveSubscriptions();
  const quotas = createStreamQuotas(options.streamLimit);
  const yoga = createExecution({ ...options, quotas, clock });
  const sockets = createGraphqlSockets({
    yoga,
    authenticate,
    watch,
    rateLimits,
    quotas,
    documents,
    subscriptions,
    logError,
    clock,
  });
  const answering = new Set<ServerResponse>();
  let closing = false;

  async function answer(request: IncomingMessage, response: ServerResponse, origin: RequestOrigin): Promise<void> {
    if (closing) return refuse(request, response, new AegisError('UNAVAILABLE'));
    if (graphiql && asksForGraphiql(request)) return serveGraphiql(response);
    // A token is never sent by a browser of its own accord; a page from elsewhere has no business here all the same.
    if (origins.isForeign(request)) return refuse(request, response, foreignOrigin());
    const cors = Object.entries(origins.headersFor(request));
    for (const [name, value] of cors) response.setHeader(name, value);
    if (request.method === 'OPTIONS' && cors.length > 0) return answerPreflight(response);
    await rateLimits.countAddress(origin.clientAddress);
    const consumer = await authenticate(request.headers.authorization);
    if (consumer === null) {
      await rateLimits.countFailure(origin.clientAddress);
      return refuse(request, response, new AegisError('UNAUTHENTICATED'));
    }
    await rateLimits.countConsumer(consumer);
    // Browsers send forms and plain text across origins without asking; JSON they do not.
    if (request.method === 'POST' && !isJson(request))
      return refuse(
        request,
        response,
        new AegisError('BAD_USER_INPUT', 'The content type must be application/json'),
        415,
      );
    return run(request, response, { ...consumer, origin }, origin);
  }

  async function run(
    request: IncomingMessage,
    response: ServerResponse,
    consumer: Consumer,
    { requestId, traceparent }: RequestOrigin,
  ): Promise<void> {
    const present = createErrorPresenter((error, context) => logError(error, context, requestId));
    const place: StreamPlace = { lastSeen: lastEventIdOf(request), cursor: null };
    const opened: Results[] = [];
    const track = (iterable: AsyncIterable<ExecutionResult>, onEnded: () => void) => {
      const results = subscriptions.track(iterable, onEnded);
      opened.push(results);
      return results;
    };
    const answered = await yoga.handleNodeRequestAndResponse(request, response, {
      ...{ consumer, place, present, track, traceparent },
    });
    const [results] = opened;
    if (results && answered.headers.get('content-type') === eventStreamType)
      return streamEvents({
        ...{ response, results, place, present, clock },
        watch: (onEnded) => watch(consumer, onEnded),
      });
    // A subscription of someone who would not take a stream.
    await results?.return();
    response.writeHead(answered.status, Object.fromEntries(answered.headers));
    response.end(await answered.text());
  }

  async function acceptCounted(upgrade: Upgrade): Promise<void> {
    // Whoever is gone by the time the count is known must not throw for it.
    const ignore = () => {};
    upgrade.socket.on('error', ignore);
    const { clientAddress } = upgrade.origin;
    try {
      quotas.addresses.check(clientAddress);
      upgrade.socket.once('close', quotas.addresses.take(clientAddress));
      await rateLimits.countAddress(clientAddress);
    } catch (error) {
      if (!(error instanceof AegisError)) throw error;
      return upgrade.refuse(error.code, { retryAfterSeconds: error.retryAfterSeconds });
    } finally {
      upgrade.socket.off('error', ignore);
    }
    sockets.accept(upgrade);
  }

  return {
    async handle(request, response, origin) {
      answering.add(response);
      response.once('close', () => answering.delete(response));
      try {
        await answer(request, response, origin);
      } catch (error) {
        if (error instanceof AegisError && !response.headersSent) return refuse(request, response, error);
        logError(error, 'a GraphQL request failed', origin.requestId);
        response.destroy();
      }
    },

    upgrade(upgrade) {
      // A browser's page may open a socket anywhere; only pages from here may open one here (CSWSH).
      if (closing) upgrade.refuse('UNAVAILABLE');
      else if (origins.isForeign(upgrade.request))
        upgrade.refuse('ORIGIN_REFUSED', { detail: foreignOrigin().message });
      else
        acceptCounted(upgrade).catch((error: unknown) => {
          logError(error, 'an upgrade to GraphQL failed', upgrade.origin.requestId);
          upgrade.socket.destroy();
        });
    },

    async close() {
      closing = true;
      // A stream that is cut tells its client to come back; one that ends would tell it that all is done.
      for (const response of answering) if (isStream(response)) response.destroy();
      await sockets.close(closeGraceMs);
      await subscriptions.endAll();
      await yoga.dispose();
    },

    activeSubscriptions: () => subscriptions.count,
  };
}

/** The cursor in the header with which readers of Server-Sent Events come back; null where they have none. */
function lastEventIdOf({ headers }: IncomingMessage): string | null {
  const id = headers['last-event-id'];
  return typeof id === 'string' && id !== '' ? id : null;
}

function isJson(request: IncomingMessage): boolean {
  return /^application\/(graphql\+)?json *(;|$)/i.test(request.headers['content-type'] ?? '');
}

/** Begun and not ended: only a subscription's answer stays so. */
function isStream(response: ServerResponse): boolean {
  return response.headersSent && !response.writableEnded;
}

function foreignOrigin(): AegisError {
  return new AegisError('ORIGIN_REFUSED', 'Only pages from here may connect here');
}

function answerPreflight(response: ServerResponse): void {
  response.writeHead(204);
  response.end();
}

/** Answers before anything of GraphQL runs, in the form of a GraphQL error. */
function refuse(
  request: IncomingMessage,
  response: ServerResponse,
  { code, message, retryAfterMs, retryAfterSeconds, httpStatus }: AegisError,
  status: number = httpStatus,
): void {
  const accepted = request.headers.accept ?? '';
  const type = accepted.includes('application/graphql-response+json') ? 'graphql-response+json' : 'json';
  response.writeHead(status, {
    'content-type': `application/${type}; charset=utf-8`,
    ...(status === 401 ? { 'www-authenticate': 'Bearer' } : {}),
    ...(status === 503 || status === 429 ? { 'retry-after': String(retryAfterSeconds) } : {}),
  });
  const extensions = { code, ...(retryAfterMs === null ? {} : { retryAfterMs }) };
  response.end(JSON.stringify({ errors: [{ message, extensions }] }));
}
