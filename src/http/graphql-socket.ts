import type { IncomingMessage } from 'node:http';
import type { ExecutionArgs, GraphQLError } from 'graphql';
import { CloseCode, type Context, handleProtocols, makeServer } from 'graphql-ws';
import { type WebSocket, WebSocketServer } from 'ws';
import type { Authenticate } from '../access/authenticate.ts';
import type { Consumer } from '../access/consumer.ts';
import type { RateLimits } from '../access/rate-limits.ts';
import type { Validity } from '../access/validity.ts';
import type { Clock } from '../clock.ts';
import { AegisError, describeError, type ErrorCode } from '../errors.ts';
import { codeOf, createErrorPresenter, type PresentError } from '../schema/errors.ts';
import type { ActiveSubscriptions } from './active-subscriptions.ts';
import type { Documents } from './documents.ts';
import { type GraphqlYoga, maxRequestBytes } from './graphql-execution.ts';
import { type LogRequestError, type RequestOrigin, traceparentIn } from './request-origin.ts';
import { createSocketSender, type SocketSender } from './socket-sender.ts';
import { checkVariables } from './sound-input.ts';
import type { StreamQuotas } from './stream-quotas.ts';
import { shakeHands, type Upgrade } from './upgrade.ts';

/** GraphQL over WebSocket, by the protocol `graphql-transport-ws`. */
export interface GraphqlSockets {
  accept(upgrade: Upgrade): void;
  /** Closes every socket with 1012, which stock clients retry; those that do not answer are cut after `graceMs`. */
  close(graceMs: number): Promise<void>;
}

interface Connection {
  readonly request: IncomingMessage;
  readonly present: PresentError;
  readonly origin: RequestOrigin;
  readonly subscriptions: ActiveSubscriptions;
  /** Ends the socket with the close code of an error. */
  readonly end: (code: ErrorCode) => void;
  /** Called once the client has shown who it is. Throws TOO_MANY_STREAMS. */
  readonly admit: (consumer: Consumer) => void;
  consumer: (Consumer & { readonly origin: RequestOrigin }) | null;
}

type Enveloped = ReturnType<GraphqlYoga['getEnveloped']>;

/** Proxies cut what is idle for 30 seconds or a minute. A client that takes nothing for as long is given up. */
const beatMs = 12_000;
/** Nobody has cause to cut a message into smaller pieces, and each costs memory beside what it holds. */
const leastFragmentBytes = 512;
const maxBufferedChunks = 4_096;
/** Operations that run at once; what more is needed goes over another socket. */
export const maxSocketOperations = 200;
/** Of an operation's id, which is held with it. */
export const maxIdCharacters = 255;
/** So long a client that is given up has to read what is under way and the close frame behind it. */
const giveUpGraceMs = 5_000;

export function createGraphqlSockets(options: {
  readonly yoga: GraphqlYoga;
  readonly authenticate: Authenticate;
  readonly watch: Validity['watch'];
  readonly rateLimits: RateLimits;
  readonly quotas: StreamQuotas;
  readonly documents: Documents;
  readonly subscriptions: ActiveSubscriptions;
  readonly logError: LogRequestError;
  readonly clock: Clock;
}): GraphqlSockets {
  const { yoga, authenticate, watch, rateLimits, quotas, documents, logError, clock } = options;
  /** By the arguments of an operation, the functions that run it with all of yoga's plugins. */
  const engines = new WeakMap<ExecutionArgs, Enveloped>();
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: maxRequestBytes,
    maxFragments: maxRequestBytes / leastFragmentBytes,
    maxBufferedChunks,
    perMessageDeflate: false,
    // Answered below, so that nobody piles up answers by pinging.
    autoPong: false,
    handleProtocols,
  });

  function engineOf(args: ExecutionArgs): Enveloped {
    const engine = engines.get(args);
    if (!engine) throw new Error('an operation that was not prepared here');
    return engine;
  }

  const protocol = makeServer<Record<string, unknown>, Connection>({
    async onConnect({ connectionParams, extra }) {
      try {
        const authorization = authorizationIn(connectionParams) ?? extra.request.headers.authorization;
        const consumer = await authenticate(authorization);
        if (consumer === null) await rateLimits.countFailure(extra.origin.clientAddress);
        const origin = { ...extra.origin, traceparent: traceparentFor(connectionParams, extra.origin.traceparent) };
        if (consumer) extra.admit(consumer);
        extra.consumer = consumer && { ...consumer, origin };
      } catch (error) {
        if (!(error instanceof AegisError)) throw error;
        extra.end(error.code);
      }
      return extra.consumer !== null;
    },
    async onSubscribe({ extra, subscriptions: running }, id, payload) {
      const { subscriptions, present } = extra;
      try {
        if (extra.consumer === null) throw new Error('a subscription before authentication');
        const traceparent = traceparentFor(payload.extensions, extra.consumer.origin.traceparent);
        const consumer = { ...extra.consumer, origin: { ...extra.consumer.origin, traceparent } };
        if (id.length > maxIdCharacters) throw new AegisError('BAD_USER_INPUT', 'The id of the operation is too long');
        // The one that is asked for is among them.
        if (Object.keys(running).length > maxSocketOperations) throw new AegisError('TOO_MANY_OPERATIONS');
        await rateLimits.countConsumer(consumer);
        checkVariables(payload.variables);
        const params = { ...payload, query: documents.textOf(payload) ?? '' };
        const engine = yoga.getEnveloped({ consumer, params, present, traceparent, track: subscriptions.track });
        const document = engine.parse(params.query);
        const errors = engine.validate(engine.schema, document);
        if (errors.length > 0) return errors.map(present);
        const args: ExecutionArgs = {
          schema: engine.schema,
          document,
          operationName: params.operationName,
          variableValues: params.variables,
          contextValue: await engine.contextFactory(),
        };
        engines.set(args, engine);
        return args;
      } catch (error) {
        return [present(error)];
      }
    },
    execute: (args) => engineOf(args).execute(args),
    subscribe: (args) => engineOf(args).subscribe(args),
    onNext({ extra: { present } }, _id, _payload, _args, { errors, data, extensions }) {
      if (!errors) return undefined;
      return {
        errors: errors.map((error) => present(error).toJSON()),
        ...(data === undefined ? {} : { data }),
        ...(extensions === undefined ? {} : { extensions }),
      };
    },
    onError(context, _id, _payload, errors) {
      const presented = errors.map(context.extra.present);
      for (const error of presented) closeWhereItEnds(context, error);
      return presented.map((error) => error.toJSON());
    },
  });

  function open(socket: WebSocket, { request, origin }: Upgrade): void {
    const { requestId } = origin;
    const subscriptions = options.subscriptions.group();
    const present = createErrorPresenter((error, context) => logError(error, context, requestId));
    const sender = createSocketSender(socket);
    const closed = protocol.opened(
      {
        protocol: socket.protocol,
        send: sender.send,
        close: (code, reason) => socket.close(code, reason),
        onMessage(receive) {
          socket.on('message', (message) => {
            receive(String(message)).catch((error: unknown) => {
              logError(error, 'a message over graphql-ws failed', requestId);
              socket.close(CloseCode.InternalServerError, 'Internal server error');
            });
          });
        },
      },
      { request, present, origin, subscriptions, end, admit, consumer: null },
    );
    const stopBeating = keepAlive(socket, sender, clock, () => end('SLOW_CONSUMER'));
    let stopWaiting = () => {};
    let stopWatching = () => {};

    function admit(consumer: Consumer): void {
      if (socket.readyState !== socket.OPEN) return;
      quotas.sockets.check(consumer);
      socket.once('close', quotas.sockets.take(consumer));
      stopWatching = watch(consumer, () => end('UNAUTHENTICATED'));
    }

    function end(code: ErrorCode): void {
      if (socket.readyState !== socket.OPEN) return;
      socket.close(describeError(code).closeCode, code);
      // Its close frame must be read.
      socket.resume();
      stopWaiting = clock.after(giveUpGraceMs, () => socket.terminate());
      void subscriptions.endAll();
    }

    // Broken frames and resets: `ws` closes with the code that fits.
    socket.on('error', () => {});
    socket.once('close', (code, reason) => {
      stopBeating();
      stopWaiting();
      stopWatching();
      closed(code, String(reason)).catch((error: unknown) =>
        logError(error, 'a subscription could not be ended', requestId),
      );
      // Also what graphql-ws has lost sight of: of two operations under one id it knows the later one.
      void subscriptions.endAll();
    });
  }

  return {
    accept(upgrade) {
      shakeHands(sockets, upgrade, (socket) => open(socket, upgrade));
    },
    async close(graceMs) {
      const open = [...sockets.clients];
      const closings = open.map((socket) => new Promise<void>((resolve) => socket.once('close', () => resolve())));
      for (const socket of open) socket.close(1012, 'Service restart');
      const cut = setTimeout(() => {
        for (const socket of open) socket.terminate();
      }, graceMs);
      await Promise.all(closings);
      clearTimeout(cut);
    },
  };
}

/** Pings, and cuts a socket that did not answer the ping before. */
function keepAlive(socket: WebSocket, sender: SocketSender, clock: Clock, giveUp: () => void): () => void {
  let answered = true;
  socket.on('pong', () => {
    answered = true;
  });
  return clock.every(beatMs, () => {
    const state = sender.look();
    if (state === 'stuck') return giveUp();
    // A ping would wait behind the rest, and a missing answer would say nothing.
    if (state === 'waiting') return undefined;
    if (!answered) return socket.terminate();
    answered = false;
    return socket.ping();
  });
}

/**
 * A slow reader's error ends the socket, with 1013. The error itself is not sent any more: stock clients come back after that
 * code, but not after an error.
 */
function closeWhereItEnds(context: Context<Record<string, unknown>, Connection>, error: GraphQLError): void {
  if (codeOf(error) === 'SLOW_CONSUMER') context.extra.end('SLOW_CONSUMER');
}

/** The place in a trace that is named there, or else the one that was known before: the nearer one counts. */
function traceparentFor(named: Readonly<Record<string, unknown>> | null | undefined, before: string | null) {
  return traceparentIn(parameterOf(named, 'traceparent')) ?? before;
}

function authorizationIn(parameters: Readonly<Record<string, unknown>> | undefined): string | undefined {
  const found = parameterOf(parameters, 'authorization');
  return found === undefined || found === null ? undefined : String(found);
}

/** Parameters stand for headers, whose names are written in any case. */
function parameterOf(parameters: Readonly<Record<string, unknown>> | null | undefined, wanted: string): unknown {
  return Object.entries(parameters ?? {}).find(([name]) => name.toLowerCase() === wanted)?.[1];
}
