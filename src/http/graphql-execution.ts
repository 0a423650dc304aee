import {
  type DocumentNode,
  type ExecutionResult,
  execute,
  GraphQLError,
  type GraphQLSchema,
  getOperationAST,
  NoSchemaIntrospectionCustomRule,
  OperationTypeNode,
  parse,
  type Source,
  subscribe,
  validate,
} from 'graphql';
import { createYoga, isAsyncIterable, type Plugin } from 'graphql-yoga';
import type { Consumer } from '../access/consumer.ts';
import type { RateLimits } from '../access/rate-limits.ts';
import type { Clock } from '../clock.ts';
import { describeError } from '../errors.ts';
import { codeOf, type PresentError } from '../schema/errors.ts';
import type { StreamPlace } from '../schema/streams.ts';
import type { EndedOperation } from '../telemetry/tracing.ts';
import type { Results } from './active-subscriptions.ts';
import { checkDocument, mutationsIn, within } from './document-limits.ts';
import type { Documents } from './documents.ts';
import { costOf } from './query-cost.ts';
import { checkVariables, soundLiterals } from './sound-input.ts';
import type { StreamQuotas } from './stream-quotas.ts';

/** Bytes of a body, or of a frame over WebSocket. */
export const maxRequestBytes = 1024 * 1024;
export const maxDocumentCharacters = 100_000;
export const maxDocumentTokens = 5_000;
/** Of a subscription, with its variables and extensions, as JSON: all of it is held for as long as it runs. */
export const maxSubscriptionCharacters = 131_072;

/** What operators may set of what one operation may ask for. */
export interface OperationLimits {
  /** Levels of fields; introspection has a limit of its own. */
  readonly maxDepth: number;
  /** Objects that an answer may hold. */
  readonly maxCost: number;
}

export const eventStreamType = 'text/event-stream';
const eventStream = { 'content-type': eventStreamType };

/** What is known before an operation is read: who asks, and who takes what a subscription brings. */
export interface OperationOrigin {
  readonly consumer: Consumer;
  /** Takes charge of a subscription's results; they are read from what it returns. */
  readonly track: (results: AsyncIterable<ExecutionResult>, onEnded: () => void) => Results;
  readonly traceparent: string | null;
  /** Makes errors fit for whoever asked. */
  readonly present: PresentError;
  /** Where the transport can resume a stream. */
  readonly place?: StreamPlace;
}

interface RunningOperation {
  readonly document: DocumentNode;
  readonly operationName?: string | null | undefined;
  readonly contextValue: OperationOrigin;
}

export type GraphqlYoga = ReturnType<typeof createExecution>;

/**
 * Parsing, validation, execution and answers over HTTP, by yoga. Every transport goes through it, so that one set of plugins
 * holds on all. To a subscription over HTTP it answers without a body: whoever tracks the results streams them.
 */
export function createExecution(options: {
  readonly schema: GraphQLSchema;
  readonly contextFor: (consumer: Consumer) => object;
  readonly limits: OperationLimits;
  readonly documents: Documents;
  /** The operation itself is counted by whoever took it; each mutation beyond its first one is counted here. */
  readonly rateLimits: Pick<RateLimits, 'countConsumer'>;
  readonly quotas: StreamQuotas;
  /** Whether the schema tells of itself, and errors suggest what may have been meant. */
  readonly introspection: boolean;
  readonly clock: Clock;
  readonly onOperation: (operation: EndedOperation) => void;
}) {
  const { schema, contextFor, limits, documents, rateLimits, quotas, introspection, clock, onOperation } = options;
  const hideSuggestions = !introspection;
  /** What an operation is, by its parameters. */
  const asked = new WeakMap<object, { readonly mutations: number; readonly isSubscription: boolean }>();

  /** A subscription is told of once it stands: its results may come for days. */
  function tellOf({ document, operationName, contextValue }: RunningOperation, startedAt: Date, result: object): void {
    const { operation = 'query', name } = getOperationAST(document, operationName) ?? {};
    onOperation({
      ...{ type: operation, name: name?.value ?? null, startedAt },
      traceparent: contextValue.traceparent,
      hasErrors: 'errors' in result && result.errors !== undefined,
    });
  }

  const engine: Plugin<OperationOrigin> = {
    onParse({ setParseFn }) {
      setParseFn(parseBounded);
    },
    onValidate({ params: { documentAST }, addValidationRule, setValidationFn }) {
      checkDocument(documentAST, limits.maxDepth);
      addValidationRule(soundLiterals);
      if (!introspection) addValidationRule(NoSchemaIntrospectionCustomRule);
      setValidationFn((schemaOf, document, rules, _typeInfo, validation) =>
        validate(schemaOf, document, rules, { ...validation, hideSuggestions }),
      );
      // Thrown and not set as a result, which would be remembered for other variables as well.
      return ({ valid, context: { params } }) => {
        if (!valid) return;
        const operation = getOperationAST(documentAST, params.operationName)?.operation;
        const isSubscription = operation === OperationTypeNode.SUBSCRIPTION;
        asked.set(params, { mutations: mutationsIn(documentAST, params.operationName), isSubscription });
        if (isSubscription) within('number of characters', JSON.stringify(params).length, maxSubscriptionCharacters);
        within('cost', costOf(schema, documentAST, params.operationName, params.variables), limits.maxCost);
      };
    },
    onExecute({ setExecuteFn, args: { document, operationName, contextValue } }) {
      setExecuteFn((args) => execute({ ...args, hideSuggestions }));
      const startedAt = new Date(clock.now());
      return {
        onExecuteDone({ result }) {
          tellOf({ document, operationName, contextValue }, startedAt, result);
        },
      };
    },
    onSubscribe({ args: { document, operationName, contextValue }, setSubscribeFn }) {
      setSubscribeFn(async (args) => {
        const startedAt = new Date(clock.now());
        const results = await subscribe({ ...args, hideSuggestions });
        tellOf({ document, operationName, contextValue }, startedAt, results);
        if (!isAsyncIterable(results)) return results;
        return contextValue.track(results, quotas.subscriptions.take(contextValue.consumer));
      });
    },
    onParams({ request, params, setParams }) {
      checkVariables(params.variables);
      // Of what stands in a URL yoga passes on what it knows itself.
      const documentId = request.method === 'GET' ? new URL(request.url).searchParams.get('documentId') : null;
      const query = documents.textOf({ ...params, ...(documentId === null ? {} : { documentId }) });
      if (query !== undefined) setParams({ ...params, query });
    },
  };

  const answers: Plugin<object, OperationOrigin> = {
    onResultProcess({ serverContext: { present }, result, setResult, resultProcessor, setResultProcessor }) {
      if (!isAsyncIterable(result)) {
        if (!Array.isArray(result)) setResult(presented(result, present));
      } else if (resultProcessor) {
        // Whoever accepts a subscription's answer at all accepts Server-Sent Events.
        setResultProcessor((_result, { Response }) => new Response(null, { headers: eventStream }), eventStreamType);
      }
    },
  };

  return createYoga<OperationOrigin, object>({
    schema,
    // Asked for before anything runs, on every transport.
    context({ consumer, place, params }) {
      const { mutations = 0, isSubscription = false } = asked.get(params) ?? {};
      if (isSubscription) quotas.subscriptions.check(consumer);
      const further = mutations - 1;
      const context = { ...contextFor(consumer), place };
      return further > 0 ? rateLimits.countConsumer(consumer, further).then(() => context) : context;
    },
    plugins: [engine, answers],
    graphqlEndpoint: '/graphql',
    maxRequestBodySize: maxRequestBytes,
    // `answers` masks, in the same way as the other transports do.
    maskedErrors: false,
    logging: false,
    graphiql: false,
    landingPage: false,
    batching: false,
    extraParamNames: ['documentId'],
    multipart: false,
    cors: false,
  });
}

function presented<Result extends ExecutionResult>(result: Result, present: PresentError): Result {
  return result.errors ? { ...result, errors: result.errors.map((error) => withStatus(error, present)) } : result;
}

/** Nesting that the parser's recursion cannot follow is the document's fault, not ours. */
function parseBounded(source: string | Source): DocumentNode {
  const length = typeof source === 'string' ? source.length : source.body.length;
  if (length > maxDocumentCharacters)
    throw parseFailure(`The document has more than ${maxDocumentCharacters} characters`);
  try {
    return parse(source, { maxTokens: maxDocumentTokens });
  } catch (error) {
    if (error instanceof GraphQLError) throw parseFailure(error.message, error);
    if (error instanceof RangeError) throw parseFailure('The document is nested too deeply');
    throw error;
  }
}

function parseFailure(message: string, error?: GraphQLError): GraphQLError {
  const { source = null, positions = null } = error ?? {};
  return new GraphQLError(message, {
    source,
    positions,
    extensions: { code: 'GRAPHQL_PARSE_FAILED' },
  });
}

/**
 * Presents an error and tells yoga the status: that of the catalogue where the request failed as a whole, none where a field
 * did. `spec` marks faults of a document or its variables, which answers of type `application/json` report with 200
 * (GraphQL over HTTP, "Legacy watershed"); what yoga worded itself was no GraphQL request at all.
 */
function withStatus(error: GraphQLError, present: PresentError): GraphQLError {
  const known = present(error);
  if (known.path !== undefined) return known;
  const { code, http } = error.extensions;
  const status = describeError(codeOf(known)).httpStatus;
  const spec = status === 400 && (code === undefined || code === codeOf(known));
  const { message, nodes = null, source = null, positions = null, extensions } = known;
  const { retryAfterMs } = extensions;
  const given = typeof http === 'object' ? http : {};
  const waiting =
    typeof retryAfterMs === 'number' ? { headers: { 'retry-after': String(Math.ceil(retryAfterMs / 1_000)) } } : {};
  return new GraphQLError(message, {
    nodes,
    source,
    positions,
    extensions: { ...extensions, http: { ...given, ...waiting, spec, status } },
  });
}
