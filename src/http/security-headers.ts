/** A year, as the preload lists ask for. */
const strictTransportSeconds = 31_536_000;

/**
 * What every answer carries, whoever gives it. Nothing that the gateway answers is a page, but for GraphiQL, which brings a policy
 * of its own; and nothing may be kept by a cache, as all of it depends on who asks and when.
 */
export function securityHeaders(options: { readonly isTls: boolean }): Readonly<Record<string, string>> {
  return {
    'cache-control': 'no-store',
    'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    // Of plain text a proxy may make TLS; then the header is the proxy's to add (RFC 6797, section 7.2).
    ...(options.isTls ? { 'strict-transport-security': `max-age=${strictTransportSeconds}` } : {}),
  };
}
