import type { IncomingMessage } from 'node:http';

/** Whose pages may use GraphQL from a browser. */
export interface Origins {
  /** Whether a page makes the request that is neither from here nor one of those that are allowed. */
  isForeign(request: IncomingMessage): boolean;
  /**
   * What an answer says to the browser of an allowed page (the Fetch standard, section 3.2); nothing to any other. Without
   * credentials: a token is not sent by the browser of its own accord.
   */
  headersFor(request: IncomingMessage): Readonly<Record<string, string>>;
}

const preflightSeconds = 600;
const requestHeaders = 'authorization, content-type, last-event-id, traceparent, x-request-id';

/** `allowed`: origins such as `https://console.example.com`. */
export function createOrigins(allowed: readonly string[]): Origins {
  const known = new Set(allowed);
  return {
    isForeign({ headers: { origin, host } }) {
      if (origin === undefined || known.has(origin)) return false;
      return !URL.canParse(origin) || new URL(origin).host !== host?.toLowerCase();
    },
    headersFor({ method, headers: { origin } }) {
      if (origin === undefined || !known.has(origin)) return {};
      const answer = {
        'access-control-allow-origin': origin,
        'access-control-expose-headers': 'retry-after, x-request-id',
        vary: 'Origin',
      };
      if (method !== 'OPTIONS') return answer;
      return {
        ...answer,
        'access-control-allow-methods': 'GET, POST',
        'access-control-allow-headers': requestHeaders,
        'access-control-max-age': String(preflightSeconds),
      };
    },
  };
}
