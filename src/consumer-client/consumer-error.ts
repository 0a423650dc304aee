/** What the gateway said instead of data, or what became of the connection to it. */
export class ConsumerError extends Error {
  /** The code of the first error, by the catalogue (`docs/ERRORS.md`). */
  readonly code: string;
  /** The code with which a WebSocket was closed, where that is what happened. */
  readonly closeCode: number | null;

  constructor(code: string, message: string, options: ErrorOptions & { readonly closeCode?: number } = {}) {
    super(message, options);
    this.name = 'ConsumerError';
    this.code = code;
    this.closeCode = options.closeCode ?? null;
  }
}

/** An error as it stands in an answer of GraphQL. */
export interface AnswerError {
  readonly message: string;
  readonly extensions?: { readonly code?: unknown } | undefined;
}

/** Whatever was thrown, as a ConsumerError. graphql-ws throws an error, an array of GraphQL errors or the event of a closed socket. */
export function consumerErrorOf(reason: unknown): ConsumerError {
  if (reason instanceof ConsumerError) return reason;
  if (Array.isArray(reason)) {
    const [first]: readonly AnswerError[] = reason;
    return new ConsumerError(String(first?.extensions?.code ?? 'INTERNAL_SERVER_ERROR'), first?.message ?? 'no data');
  }
  if (isCloseEvent(reason)) {
    const { code: closeCode, reason: text } = reason;
    const code = codeOfClose.get(closeCode) ?? 'UNAVAILABLE';
    return new ConsumerError(code, `the connection was closed: ${closeCode} ${text}`.trim(), { closeCode });
  }
  return new ConsumerError('UNAVAILABLE', 'the gateway does not answer', { cause: reason });
}

const codeOfClose: ReadonlyMap<number, string> = new Map([
  [4403, 'UNAUTHENTICATED'],
  [1013, 'SLOW_CONSUMER'],
]);

/** Closes that say that this client does not keep to the protocol: it would not the next time either. */
const faultsOfTheClient: ReadonlySet<number> = new Set([
  1002, 1003, 1007, 1008, 1009, 1010, 4400, 4401, 4406, 4409, 4429,
]);
const passingCodes: ReadonlySet<string> = new Set(['UNAVAILABLE', 'SLOW_CONSUMER', 'INTERNAL_SERVER_ERROR']);

/** Whether the same may succeed later. */
export function isPassing({ code, closeCode }: ConsumerError): boolean {
  return passingCodes.has(code) && (closeCode === null || !faultsOfTheClient.has(closeCode));
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
