import { type Client, createClient } from 'graphql-ws';
import { type AnswerError, ConsumerError, consumerErrorOf } from './consumer-error.ts';
import { EventCursorDocument, type TypedDocumentString } from './generated/graphql.ts';
import { hearingSocket } from './hearing-socket.ts';
import { type Connection, type Resumption, resuming, takesCursor } from './resuming.ts';

export * from './generated/graphql.ts';
export { ConsumerError, type Resumption };

/** Variables may be left out where every one of them is optional. */
type VariablesOf<Variables> = Record<never, never> extends Variables ? [variables?: Variables] : [variables: Variables];

/** A consumer of the gateway, typed by the documents in `documents/`. */
export interface ConsumerClient {
  /** Throws a ConsumerError where the gateway answers with errors; rejects where it does not answer. */
  query<Result, Variables>(
    document: TypedDocumentString<Result, Variables>,
    ...variables: VariablesOf<Variables>
  ): Promise<Result>;

  /** The same for a mutation. */
  mutate<Result, Variables>(
    document: TypedDocumentString<Result, Variables>,
    ...variables: VariablesOf<Variables>
  ): Promise<Result>;

  /**
   * Results as they come, over one socket for all subscriptions. Leaving the loop ends the subscription. Throws where the
   * gateway ends it with an error.
   *
   * Where the connection is lost, or the gateway closes it on a reader that was too slow, a subscription to events whose
   * document takes `$after` and selects `cursor` (and `to` of a gap) comes back by itself and goes on where it was,
   * without a gap or a repeat (`Resumption`); every other one throws.
   */
  subscribe<Result, Variables>(
    document: TypedDocumentString<Result, Variables>,
    ...variables: VariablesOf<Variables>
  ): AsyncIterableIterator<Result>;

  /** Ends every subscription and closes the socket. */
  close(): Promise<void>;
}

interface Answer<Result> {
  readonly data?: Result | null | undefined;
  readonly errors?: readonly AnswerError[] | undefined;
}

export interface ConsumerClientOptions {
  /** The gateway's, such as `http://127.0.0.1:8080`. */
  readonly url: string;
  /** The bearer token, or what gives one for each connection and request: say one that has not run out. */
  readonly token: string | (() => string | Promise<string>);
  /** Sends the ids of documents in place of their texts: for gateways that have them in GRAPHQL_DOCUMENTS_PATH. */
  readonly documentIds?: boolean;
  /** How subscriptions to events come back after a loss; false: they throw instead. */
  readonly resume?: Resumption | false;
  /** A socket that was silent for so long counts as lost: 30 s where absent. The gateway pings every 12 s. */
  readonly silenceMs?: number;
}

export function createConsumerClient(options: ConsumerClientOptions): ConsumerClient {
  const { token, resume = {}, documentIds = false, silenceMs = 30_000 } = options;
  const endpoint = new URL('/graphql', options.url);
  let closing = new AbortController();
  let socket: Client | null = null;
  let lastConnection: Connection | null = null;

  async function authorization(): Promise<string> {
    return `Bearer ${typeof token === 'string' ? token : await token()}`;
  }

  async function ask<Result, Variables>(
    document: TypedDocumentString<Result, Variables>,
    ...[variables]: VariablesOf<Variables>
  ): Promise<Result> {
    const response = await fetch(endpoint, {
      method: 'POST',
      headers: {
        authorization: await authorization(),
        'content-type': 'application/json',
        accept: 'application/graphql-response+json',
      },
      body: JSON.stringify({ ...naming(document), variables }),
    });
    // In the schema's shape: the types are made of the schema that this gateway serves.
    const answer: Answer<Result> = JSON.parse(await response.text());
    return dataOf(answer);
  }

  function connected(): Client {
    socket ??= createClient({
      url: endpoint.href.replace(/^http/, 'ws'),
      webSocketImpl: hearingSocket(silenceMs),
      connectionParams: async () => ({ authorization: await authorization() }),
      // A stock reconnect would repeat the first variables and leave a gap.
      retryAttempts: 0,
      on: {
        connected() {
          lastConnection = { openedAtMs: performance.now(), closedAtMs: null };
        },
        closed() {
          // Also an attempt that failed.
          if (lastConnection?.closedAtMs === null)
            lastConnection = { openedAtMs: lastConnection.openedAtMs, closedAtMs: performance.now() };
        },
      },
    });
    return socket;
  }

  function subscribe<Result, Variables>(
    document: TypedDocumentString<Result, Variables>,
    ...[variables]: VariablesOf<Variables>
  ): AsyncIterableIterator<Result> {
    const query = String(document);
    const open = (more: { readonly after?: string }): AsyncIterableIterator<Result> =>
      resultsOf(connected().iterate({ ...naming(document), variables: { ...variables, ...more } }));
    if (resume === false || !takesCursor(query)) return open({});
    return resuming({
      open: (after) => open({ after }),
      cursorOfNow: async () => (await ask(EventCursorDocument)).eventCursor,
      after: afterIn(variables),
      lastConnection: () => lastConnection,
      signal: closing.signal,
      resumption: resume,
    });
  }

  /** As Apollo names a document, since graphql-ws knows no other way; it demands a `query` all the same. */
  function naming<Result, Variables>(document: TypedDocumentString<Result, Variables>) {
    const id: unknown = document.__meta__?.hash;
    if (!documentIds || typeof id !== 'string') return { query: String(document) };
    return { query: '', extensions: { persistedQuery: { version: 1, sha256Hash: id.replace(/^sha256:/, '') } } };
  }

  return {
    query: ask,
    mutate: ask,
    subscribe,
    async close() {
      closing.abort();
      closing = new AbortController();
      const open = socket;
      socket = null;
      try {
        await open?.dispose();
      } catch {
        // A connection that was being made and never came to be.
      }
    },
  };
}

function afterIn(variables: unknown): string | null {
  const isGiven = typeof variables === 'object' && variables !== null && 'after' in variables;
  return isGiven && typeof variables.after === 'string' ? variables.after : null;
}

/** Not a generator: that would keep `return` waiting for the next result. */
function resultsOf<Result>(answers: AsyncIterableIterator<Answer<Result>>): AsyncIterableIterator<Result> {
  const end = async (): Promise<IteratorResult<Result>> => {
    await answers.return?.();
    return { done: true, value: undefined };
  };
  return {
    async next() {
      try {
        const { done, value } = await answers.next();
        return done ? { done, value: undefined } : { value: dataOf(value) };
      } catch (error) {
        await answers.return?.();
        throw consumerErrorOf(error);
      }
    },
    return: end,
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

function dataOf<Result>({ data, errors }: Answer<Result>): Result {
  if (errors?.length || data === null || data === undefined) throw consumerErrorOf(errors);
  return data;
}
