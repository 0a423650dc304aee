import { GraphQLError, type GraphQLErrorOptions, Kind } from 'graphql';
import { AegisError, describeError, type ErrorCode, errorCatalogue } from '../errors.ts';

/** Makes anything that was thrown into an error that consumers may see. */
export type PresentError = (error: unknown) => GraphQLError;

/**
 * The one place where errors are made fit for consumers, whatever the transport: foreseen ones keep their code and text; all
 * others are logged and masked. Presenting twice changes nothing.
 */
export function createErrorPresenter(logError: (error: unknown, context: string) => void): PresentError {
  const presented = new WeakSet<GraphQLError>();

  function present(error: unknown): GraphQLError {
    const known = presentedIn(error);
    if (known) return known;
    const { code, text, retryAfterMs = null } = understand(error) ?? masked(error);
    const extensions = { code, ...(retryAfterMs === null ? {} : { retryAfterMs }) };
    const result = new GraphQLError(text, { ...placeOf(error), extensions });
    presented.add(result);
    return result;
  }

  /** An error that was presented before, itself or as the reason of another. */
  function presentedIn(error: unknown): GraphQLError | null {
    if (!(error instanceof GraphQLError)) return null;
    return presented.has(error) ? error : presentedIn(error.originalError);
  }

  function masked(error: unknown): Understood {
    logError(error instanceof GraphQLError ? (error.originalError ?? error) : error, 'a GraphQL operation failed');
    return { code: 'INTERNAL_SERVER_ERROR', text: describeError('INTERNAL_SERVER_ERROR').text };
  }

  return present;
}

/** The code of an error that a presenter made. */
export function codeOf(error: GraphQLError): ErrorCode {
  const { code } = error.extensions;
  return isErrorCode(code) ? code : 'INTERNAL_SERVER_ERROR';
}

interface Understood {
  readonly code: ErrorCode;
  readonly text: string;
  readonly retryAfterMs?: number | null;
}

function understand(error: unknown): Understood | null {
  if (error instanceof AegisError) return { code: error.code, text: error.message, retryAfterMs: error.retryAfterMs };
  if (!(error instanceof GraphQLError)) return null;
  if (error.originalError && !(error.originalError instanceof GraphQLError)) return understand(error.originalError);
  const code = codeInExtensions(error) ?? codeOfFailedRequest(error);
  return code && { code, text: error.message };
}

/** Codes that are ours stand; yoga words its own, but tells their HTTP status. */
function codeInExtensions(error: GraphQLError): ErrorCode | null {
  const { code, http } = error.extensions;
  if (isErrorCode(code)) return code;
  const status = typeof http === 'object' && http !== null && 'status' in http ? http.status : null;
  return typeof status === 'number' ? (codesOfStatus.get(status) ?? null) : null;
}

const codesOfStatus: ReadonlyMap<number, ErrorCode> = new Map([
  [400, 'BAD_USER_INPUT'],
  [405, 'METHOD_NOT_ALLOWED'],
  [413, 'PAYLOAD_TOO_LARGE'],
]);

/**
 * What GraphQL itself finds wrong with a request once it is valid: before anything is resolved it can only be the variables or
 * the operation's name; later, an argument, told by the place that the error points to. All else is our own fault.
 */
function codeOfFailedRequest(error: GraphQLError): ErrorCode | null {
  if (error.path === undefined) return 'BAD_USER_INPUT';
  const [node] = error.nodes ?? [];
  return node && node.kind !== Kind.FIELD ? 'BAD_USER_INPUT' : null;
}

function placeOf(error: unknown): GraphQLErrorOptions {
  if (!(error instanceof GraphQLError)) return {};
  const { nodes = null, source = null, positions = null, path = null } = error;
  return { nodes, source, positions, path };
}

function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === 'string' && Object.hasOwn(errorCatalogue, code);
}
