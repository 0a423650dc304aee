import type { MiddlewareHandler } from 'hono';
import type { z } from 'zod';
import { AegisError } from '../errors.ts';
import type { RestEnvironment } from './environment.ts';
import { type JsonFault, maxValueDepth, parseSoundJson } from './sound-json.ts';

/** Longest body that is read. */
export const maxBodyBytes = 1_048_576;

/** What callers of the earlier HTTP API look for. */
export const notJsonText = 'Invalid JSON';

const faultTexts: Readonly<Record<JsonFault, string>> = {
  'not-json': notJsonText,
  'too-deep': `Values nest ${maxValueDepth} deep at most`,
  'unstorable-text': 'Texts hold no NUL and no half of a surrogate pair',
  'forbidden-key': 'A key is not allowed',
};

/** Documents a required JSON body. The route must run `readJsonBody` too. */
export function jsonBody<Schema extends z.ZodType>(schema: Schema) {
  return { content: { 'application/json': { schema } }, required: true } as const;
}

/**
 * Reads a body of at most `maxBodyBytes` as JSON, whatever its content type says, and leaves it to the validators behind.
 * Throws PAYLOAD_TOO_LARGE, BAD_USER_INPUT.
 */
export const readJsonBody: MiddlewareHandler<RestEnvironment> = async (c, next) => {
  const text = decodeUtf8(await readBounded(c.req.raw));
  const parsed = parseSoundJson(text);
  if (!parsed.ok) throw new AegisError('BAD_USER_INPUT', faultTexts[parsed.fault]);
  const headers = new Headers(c.req.raw.headers);
  // The validators of the framework look at nothing that is not called JSON.
  headers.set('content-type', 'application/json');
  c.req.raw = new Request(c.req.raw.url, { method: c.req.method, headers, body: text });
  await next();
};

/** The body's bytes; stops reading at the first byte too many. */
async function readBounded(request: Request): Promise<Uint8Array> {
  if (Number(request.headers.get('content-length') ?? 0) > maxBodyBytes) throw new AegisError('PAYLOAD_TOO_LARGE');
  const chunks: Uint8Array[] = [];
  let totalBytes = 0;
  for await (const chunk of request.body ?? []) {
    totalBytes += chunk.byteLength;
    if (totalBytes > maxBodyBytes) throw new AegisError('PAYLOAD_TOO_LARGE');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new AegisError('BAD_USER_INPUT', faultTexts['not-json']);
  }
}
