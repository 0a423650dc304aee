import type { MiddlewareHandler } from 'hono';
import type { Authenticate } from '../access/authenticate.ts';
import { type Need, requirePermission } from '../access/consumer.ts';
import { AegisError } from '../errors.ts';
import type { RestEnvironment } from './environment.ts';

/** What the document says of a route that anyone may call. */
export const openSecurity: [] = [];

/** Lets in whom `authenticate` knows, before anything else is looked at. Throws UNAUTHENTICATED, UNAVAILABLE. */
export function requireCredentials(authenticate: Authenticate): MiddlewareHandler<RestEnvironment> {
  return async (c, next) => {
    const consumer = await authenticate(c.req.header('authorization'));
    if (consumer === null) throw new AegisError('UNAUTHENTICATED');
    c.set('consumer', consumer);
    await next();
  };
}

/**
 * What a route asks of a consumer, as part of its definition: what the document says of it, and what holds it, ahead of the
 * route's other middleware. The route stands behind `requireCredentials`.
 */
export function needing<Rest extends MiddlewareHandler[]>(need: Need, ...rest: Rest) {
  const holdTo: MiddlewareHandler<RestEnvironment> = async (c, next) => {
    requirePermission(c.var.consumer, need);
    await next();
  };
  // OpenAPI 3.1, section 4.8.30: of a scheme other than OAuth2 the list names roles.
  return { security: [{ bearer: [need] }], middleware: [holdTo, ...rest] };
}
