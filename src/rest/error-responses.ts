import { z } from '@hono/zod-openapi';
import { type AegisError, describeError, type ErrorCode } from '../errors.ts';

/** A problem (RFC 9457, section 3.1) with the catalogue's code. */
export const problemSchema = z
  .object({
    type: z.string().openapi({ example: 'urn:aegis:error:AGENT_NOT_FOUND' }),
    title: z.string().openapi({ description: 'The same for every occurrence of the code.' }),
    status: z.int(),
    detail: z.string().openapi({ description: 'What the caller should mend.' }),
    instance: z.string().optional().openapi({ description: 'The path that was asked for.' }),
    code: z.string().openapi({ description: 'Which error of docs/ERRORS.md this is.', example: 'AGENT_NOT_FOUND' }),
    retryable: z.boolean().openapi({ description: 'Whether the same request may succeed later, unchanged.' }),
  })
  .openapi('Problem');

/** Answers an error as `application/problem+json`. */
export function problemResponse(error: AegisError, path: string): Response {
  const { text, httpStatus, retryable } = describeError(error.code);
  const problem: z.infer<typeof problemSchema> = {
    type: `urn:aegis:error:${error.code}`,
    title: text,
    status: httpStatus,
    detail: error.message,
    instance: path,
    code: error.code,
    retryable,
  };
  return errorResponse(error, 'application/problem+json', JSON.stringify(problem));
}

/** What the earlier HTTP API says where the catalogue words it otherwise. */
const earlierTexts: Partial<Record<ErrorCode, string>> = {
  UNAUTHENTICATED: 'Unauthorized',
  AGENT_NOT_FOUND: 'Agent not found',
};

/** Answers an error as the earlier HTTP API did: its text alone. */
export function plainTextResponse(error: AegisError): Response {
  return errorResponse(error, 'text/plain; charset=utf-8', earlierTexts[error.code] ?? error.message);
}

function errorResponse(
  { code, httpStatus, retryAfterSeconds }: AegisError,
  contentType: string,
  body: string,
): Response {
  const headers = new Headers({ 'content-type': contentType });
  // RFC 9110, section 11.6.1: a 401 names the scheme.
  if (code === 'UNAUTHENTICATED') headers.set('www-authenticate', 'Bearer');
  if (httpStatus === 429 || httpStatus === 503) headers.set('retry-after', String(retryAfterSeconds));
  return new Response(body, { status: httpStatus, headers });
}

const problemContent = { 'application/problem+json': { schema: problemSchema } };
const textContent = { 'text/plain; charset=utf-8': { schema: z.string() } };

/**
 * Responses for the document alone: handlers throw what these describe and never return it, so the type shows none of
 * them to a handler.
 */
type ThrownResponses = Record<never, never>;

/** Documents problems: one response for each status among the codes. */
export function problemResponses(...codesMet: ErrorCode[]): ThrownResponses {
  return documentErrors(codesMet, problemContent, (code) => `\`${code}\`: ${describeError(code).text}`);
}

/** Documents errors of the earlier HTTP API: one response for each status among the codes. */
export function plainTextResponses(...codesMet: ErrorCode[]): ThrownResponses {
  return documentErrors(codesMet, textContent, (code) =>
    code === 'BAD_USER_INPUT' ? 'What does not fit' : `\`${earlierTexts[code] ?? describeError(code).text}\``,
  );
}

function documentErrors(
  codesMet: readonly ErrorCode[],
  content: object,
  describe: (code: ErrorCode) => string,
): ThrownResponses {
  const statuses = [...new Set(codesMet.map((code) => describeError(code).httpStatus))];
  const describeStatus = (status: number) =>
    codesMet
      .filter((code) => describeError(code).httpStatus === status)
      .map(describe)
      .join(' · ');
  return Object.fromEntries(statuses.map((status) => [status, { description: describeStatus(status), content }]));
}
