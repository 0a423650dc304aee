import { type Client, createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import type { TypedDocumentString } from './generated/graphql.ts';

export * from './generated/graphql.ts';

/** What the gateway said instead of data. */
export class ConsumerError extends Error {
  /** The code of the first error, by the catalogue (`docs/ERRORS.md`). */
  readonly code: string;

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ConsumerError';
    this.code = code;
  }
}

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
   * gateway ends it with an error, and where the connection is lost: subscribe again with `after` set to the last cursor.
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

interface AnswerError {
  readonly message: string;
  readonly extensions?: { readonly code?: unknown } | undefined;
}

/** `url` is the gateway's, such as `http://127.0.0.1:8080`. */
export function createConsumerClient(options: { readonly url: string; readonly token: string }): ConsumerClient {
  const endpoint = new URL('/graphql', options.url);
  const authorization = `Bearer ${options.token}`;
  let socket: Client | null = null;

  async function ask<Result, Variables>(
    document: TypedDocumentString<Result, Variables>,
    ...[variables]: VariablesOf<Variables>
  ): Promise<Result> {
    const response = await fetch(endpoint, {
      method: 'POST',
      headers: { authorization, 'content-type': 'application/json', accept: 'application/graphql-response+json' },
      body: JSON.stringify({ query: String(document), variables }),
    });
    // In the schema's shape: the types are made of the schema that this gateway serves.
    const answer: Answer<Result> = JSON.parse(await response.text());
    return dataOf(answer);
  }

  function connected(): Client {
    socket ??= createClient({
      url: endpoint.href.replace(/^http/, 'ws'),
      webSocketImpl: WebSocket,
      connectionParams: { authorization },
      // A stock reconnect would repeat the first variables and leave a gap.
      retryAttempts: 0,
    });
    return socket;
  }

  return {
    query: ask,
    mutate: ask,
    subscribe(document, ...[variables]) {
      return resultsOf(connected().iterate({ query: String(document), variables: { ...variables } }));
    },
    async close() {
      await socket?.dispose();
      socket = null;
    },
  };
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

/** graphql-ws throws an error, an array of GraphQL errors or the event of a closed socket. */
function consumerErrorOf(reason: unknown): ConsumerError {
  if (reason instanceof ConsumerError) return reason;
  if (Array.isArray(reason)) {
    const [first]: readonly AnswerError[] = reason;
    return new ConsumerError(String(first?.extensions?.code ?? 'INTERNAL_SERVER_ERROR'), first?.message ?? 'no data');
  }
  if (isCloseEvent(reason)) {
    const code = reason.code === 4403 ? 'UNAUTHENTICATED' : reason.code === 1013 ? 'SLOW_CONSUMER' : 'UNAVAILABLE';
    return new ConsumerError(code, `the connection was closed: ${reason.code} ${reason.reason}`.trim());
  }
  return new ConsumerError('UNAVAILABLE', 'the gateway does not answer', { cause: reason });
}

function isCloseEvent(value: unknown): value is { code: number; reason: string } {
  return (
    typeof value === 'object' &&
    value !== null &&
    'code' in value &&
    typeof value.code === 'number' &&
    'reason' in value
  );
}
