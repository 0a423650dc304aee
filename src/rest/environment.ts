import { OpenAPIHono } from '@hono/zod-openapi';
import type { Context } from 'hono';
import { HTTPException } from 'hono/http-exception';
import type { Consumer } from '../access/consumer.ts';
import { AegisError } from '../errors.ts';
import type { LogRequestError, RequestOrigin } from '../http/request-origin.ts';

/** What handlers find in `c`: in `c.env` where the request comes from, in `c.var` what middleware left. */
export interface RestEnvironment {
  Bindings: { [Key in keyof RequestOrigin]: RequestOrigin[Key] };
  /** `consumer` is there behind `requireCredentials`. */
  Variables: { consumer: Consumer };
}

export type RestApp = OpenAPIHono<RestEnvironment>;

/** Input that does not fit its schema. */
export interface Rejection {
  /** Where it stood: `json`, `param`, `query`, `header`. */
  readonly target: string;
  readonly issues: readonly Issue[];
}

interface Issue {
  readonly code?: string | undefined;
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** How a family of routes words its errors. */
export interface ErrorWording {
  /** Answers an error; `path` is the one that was asked for. */
  readonly response: (error: AegisError, path: string) => Response;
  /** The error that a rejection is. */
  readonly rejection: (rejection: Rejection) => AegisError;
}

/** An app for one family of routes, whose errors are all worded alike. */
export function createFamily(wording: ErrorWording, logError: LogRequestError): RestApp {
  const app = new OpenAPIHono<RestEnvironment>({
    defaultHook: (result) => {
      if (!result.success) throw wording.rejection({ target: result.target, issues: result.error.issues });
    },
  });
  app.onError((error, c) => wording.response(asAegisError(error, c, logError), pathOf(c)));
  return app;
}

/** BAD_USER_INPUT that names what does not fit and why. Never repeats the input. */
export function inputError({ issues }: Rejection): AegisError {
  const texts = issues
    .slice(0, maxIssuesTold)
    .map(({ path, message }) => (path.length > 0 ? `${path.map(String).join('.')}: ${message}` : message));
  return new AegisError('BAD_USER_INPUT', texts.join('; '));
}

const maxIssuesTold = 10;

/** The path as the caller wrote it. */
export function pathOf(c: Context): string {
  return new URL(c.req.url).pathname;
}

/** A foreseen error as it is; anything else is logged and masked. */
function asAegisError(error: unknown, c: Context<RestEnvironment>, logError: LogRequestError): AegisError {
  if (error instanceof AegisError && error.code !== 'INTERNAL_SERVER_ERROR') return error;
  if (error instanceof HTTPException && error.status < 500) return new AegisError('BAD_USER_INPUT');
  logError(error, `${c.req.method} ${pathOf(c)} failed`, c.env.requestId);
  return new AegisError('INTERNAL_SERVER_ERROR');
}
