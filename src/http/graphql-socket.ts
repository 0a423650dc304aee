import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { ExecutionArgs, GraphQLError } from 'graphql';
import { CloseCode, type Context, handleProtocols, makeServer } from 'graphql-ws';
import { type WebSocket, WebSocketServer } from 'ws';
import type { Authenticate } from '../access/credentials.ts';
import type { Scope } from '../access/scope.ts';
import { describeError } from '../errors.ts';
import { codeOf, type LogError, type PresentError } from '../schema/errors.ts';
import { type GraphqlYoga, maxRequestBytes } from './graphql-execution.ts';
import { checkVariables } from './sound-input.ts';

/** GraphQL over WebSocket, by the protocol `graphql-transport-ws`. */
export interface GraphqlSockets {
  accept(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  /** Closes every socket with 1012, which stock clients retry; those that do not answer are cut after `graceMs`. */
  close(graceMs: number): Promise<void>;
}

interface Connection {
  readonly socket: WebSocket;
  readonly request: IncomingMessage;
  scope: Scope | null;
}

type Enveloped = ReturnType<GraphqlYoga['getEnveloped']>;

/** Proxies cut what is idle for 30 seconds or a minute. */
const pingIntervalMs = 12_000;

export function createGraphqlSockets(options: {
  readonly yoga: GraphqlYoga;
  readonly authenticate: Authenticate;
  readonly present: PresentError;
  readonly logError: LogError;
}): GraphqlSockets {
  const { yoga, authenticate, present, logError } = options;
  /** By the arguments of an operation, the functions that run it with all of yoga's plugins. */
  const engines = new WeakMap<ExecutionArgs, Enveloped>();
  const sockets = new WebSocketServer({
    noServer: true,
    maxPayload: maxRequestBytes,
    perMessageDeflate: false,
    handleProtocols,
  });

  function engineOf(args: ExecutionArgs): Enveloped {
    const engine = engines.get(args);
    if (!engine) throw new Error('an operation that was not prepared here');
    return engine;
  }

  const protocol = makeServer<Record<string, unknown>, Connection>({
    onConnect({ connectionParams, extra }) {
      extra.scope = authenticate(authorizationIn(connectionParams) ?? extra.request.headers.authorization);
      return extra.scope !== null;
    },
    async onSubscribe({ extra: { scope } }, _id, params) {
      try {
        if (scope === null) throw new Error('a subscription before authentication');
        checkVariables(params.variables);
        const engine = yoga.getEnveloped({ scope, params });
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
    onNext(_context, _id, _payload, _args, { errors, data, extensions }) {
      if (!errors) return undefined;
      return {
        errors: errors.map((error) => present(error).toJSON()),
        ...(data === undefined ? {} : { data }),
        ...(extensions === undefined ? {} : { extensions }),
      };
    },
    onError(context, _id, _payload, errors) {
      const presented = errors.map(present);
      for (const error of presented) closeWhereItEnds(context, error);
      return presented.map((error) => error.toJSON());
    },
  });

  sockets.on('connection', (socket: WebSocket, request: IncomingMessage) => {
    const stopPinging = keepAlive(socket);
    const closed = protocol.opened(
      {
        protocol: socket.protocol,
        send: (text) => sendTo(socket, text),
        close: (code, reason) => socket.close(code, reason),
        onMessage(receive) {
          socket.on('message', (message) => {
            receive(String(message)).catch((error: unknown) => {
              logError(error, 'a message over graphql-ws failed');
              socket.close(CloseCode.InternalServerError, 'Internal server error');
            });
          });
        },
      },
      { socket, request, scope: null },
    );
    // Broken frames and resets: `ws` closes with the code that fits.
    socket.on('error', () => {});
    socket.once('close', (code, reason) => {
      stopPinging();
      closed(code, String(reason)).catch((error: unknown) => logError(error, 'a subscription could not be ended'));
    });
  });

  return {
    accept(request, socket, head) {
      sockets.handleUpgrade(request, socket, head, (webSocket) => sockets.emit('connection', webSocket, request));
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

/** Resolves when the text has left for the kernel: what makes a slow reader's subscriptions wait. */
function sendTo(socket: WebSocket, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    if (socket.readyState !== socket.OPEN) return resolve();
    // A socket that closes meanwhile ends its subscriptions by itself.
    return socket.send(text, (error) => (error && socket.readyState === socket.OPEN ? reject(error) : resolve()));
  });
}

/** Pings, and cuts a socket that did not answer the ping before. */
function keepAlive(socket: WebSocket): () => void {
  let answered = true;
  socket.on('pong', () => {
    answered = true;
  });
  const timer = setInterval(() => {
    if (!answered) return socket.terminate();
    answered = false;
    return socket.ping();
  }, pingIntervalMs);
  return () => clearInterval(timer);
}

/** Some errors end the socket, by the catalogue: a slow reader's with 1013, after which stock clients come back. */
function closeWhereItEnds(context: Context<Record<string, unknown>, Connection>, error: GraphQLError): void {
  const code = codeOf(error);
  const { closeCode } = describeError(code);
  if (code === 'SLOW_CONSUMER' && closeCode !== undefined) context.extra.socket.close(closeCode, error.message);
}

/** The `authorization` among connection parameters, in any case. */
function authorizationIn(parameters: Readonly<Record<string, unknown>> | undefined): string | undefined {
  const found = Object.entries(parameters ?? {}).find(([name]) => name.toLowerCase() === 'authorization')?.[1];
  return found === undefined || found === null ? undefined : String(found);
}
