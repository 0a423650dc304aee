import type { MiddlewareHandler } from 'hono';
import type { Authenticate } from '../access/credentials.ts';
import { AegisError } from '../errors.ts';
import type { RestEnvironment } from './environment.ts';

/** How the document names `requireCredentials`. */
export const bearerSecurity = [{ bearer: [] }];

/** What the document says of a route that anyone may call. */
export const openSecurity: [] = [];

/** Lets in whom `authenticate` knows, before anything else is looked at. Throws UNAUTHENTICATED. */
export function requireCredentials(authenticate: Authenticate): MiddlewareHandler<RestEnvironment> {
  return async (c, next) => {
    const scope = authenticate(c.req.header('authorization'));
    if (scope === null) throw new AegisError('UNAUTHENTICATED');
    c.set('scope', scope);
    await next();
  };
}
