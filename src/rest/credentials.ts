import type { MiddlewareHandler } from 'hono';
import { type Need, requirePermission } from '../access/consumer.ts';
import type { RateLimits } from '../access/rate-limits.ts';
import { AegisError } from '../errors.ts';
import type { RestEnvironment } from './environment.ts';
import type { RestServices } from './services.ts';

/** What the document says of a route that anyone may call. */
export const openSecurity: [] = [];

/** Lets in whom `authenticate` knows, before anything else is looked at. Throws UNAUTHENTICATED, RATE_LIMITED, UNAVAILABLE. */
export function requireCredentials({
  authenticate,
  rateLimits,
}: Pick<RestServices, 'authenticate' | 'rateLimits'>): MiddlewareHandler<RestEnvironment> {
  return async (c, next) => {
    await rateLimits.countAddress(c.env.clientAddress);
    const consumer = await authenticate(c.req.header('authorization'));
    if (consumer === null) {
      await rateLimits.countFailure(c.env.clientAddress);
      throw new AegisError('UNAUTHENTICATED');
    }
    await rateLimits.countConsumer(consumer);
    c.set('consumer', { ...consumer, origin: c.env });
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

/** Counts a request to a route that asks for no credentials. Throws RATE_LIMITED. */
export function countAddress(rateLimits: RateLimits): MiddlewareHandler<RestEnvironment> {
  return async (c, next) => {
    await rateLimits.countAddress(c.env.clientAddress);
    await next();
  };
}
