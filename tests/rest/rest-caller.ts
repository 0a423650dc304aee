import { z } from 'zod';

/** What came back. */
export interface Answer {
  readonly status: number;
  readonly contentType: string | null;
  readonly headers: Headers;
  readonly text: string;
  /** The body as JSON. Throws where it is none. */
  readonly json: unknown;
}

export interface CallOptions {
  /** Sent as it is where it is a text or bytes, as JSON otherwise; no content type is set for any of them. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** Null: without credentials. */
  readonly token?: string | null;
}

export type Call = (method: string, path: string, options?: CallOptions) => Promise<Answer>;

/** Calls REST over real HTTP, with the token unless told otherwise. */
export function restCaller(baseUrl: string, token: string): Call {
  return async (method, path, options = {}) => {
    const headers = new Headers(options.headers);
    const bearer = options.token === undefined ? token : options.token;
    if (bearer !== null && !headers.has('authorization')) headers.set('authorization', `Bearer ${bearer}`);
    const response = await fetch(new URL(path, baseUrl), {
      method,
      headers,
      redirect: 'manual',
      ...withBody(options.body),
    });
    const text = await response.text();
    return {
      status: response.status,
      contentType: response.headers.get('content-type'),
      headers: response.headers,
      text,
      get json(): unknown {
        return JSON.parse(text);
      },
    };
  };
}

/** A body as bytes, so that fetch adds no content type of its own. */
function withBody(body: unknown): { body?: Uint8Array<ArrayBuffer> } {
  if (body === undefined) return {};
  if (body instanceof Uint8Array) return { body: new Uint8Array(body) };
  return { body: new TextEncoder().encode(typeof body === 'string' ? body : JSON.stringify(body)) };
}

const plainText = 'text/plain; charset=utf-8';

/** The status, content type and text of an error of the earlier HTTP API, to compare an answer with. */
export function plainError(status: number, text: string) {
  return { status, contentType: plainText, text };
}

const problemSchema = z.strictObject({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  instance: z.string(),
  code: z.string(),
  retryable: z.boolean(),
});

/** The problem in an answer, checked against RFC 9457. */
export function problemIn(answer: Answer): z.infer<typeof problemSchema> {
  if (answer.contentType !== 'application/problem+json')
    throw new Error(`not a problem: ${answer.status} ${answer.contentType} ${answer.text}`);
  const problem = problemSchema.parse(answer.json);
  if (problem.status !== answer.status) throw new Error(`the problem says ${problem.status}, HTTP ${answer.status}`);
  return problem;
}
