import type { IncomingMessage } from 'node:http';
import type { ErrorCode } from '../errors.ts';

/** Node would leave out those beyond its own limit without a word. */
const maxHeaders = 200;

/** What is wrong with a request that Node's parser lets pass; null where nothing is. */
export function faultOfRequest({ rawHeaders, httpVersion }: IncomingMessage): ErrorCode | null {
  if (rawHeaders.length > 2 * maxHeaders) return 'HEADERS_TOO_LARGE';
  const hosts = rawHeaders.filter(
    (name, index) => index % 2 === 0 && name.length === 4 && name.toLowerCase() === 'host',
  );
  // RFC 9112, section 3.2: of two hosts a proxy in front may have believed the other.
  return hosts.length === 1 || (hosts.length === 0 && httpVersion === '1.0') ? null : 'REQUEST_MALFORMED';
}

/** The code for what Node's parser found wrong; null where it is the connection that broke. */
export function faultOfParser({ code = '' }: { readonly code?: string }): ErrorCode | null {
  switch (code) {
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return 'REQUEST_TIMEOUT';
    case 'HPE_HEADER_OVERFLOW':
      return 'HEADERS_TOO_LARGE';
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return 'PAYLOAD_TOO_LARGE';
    default:
      return code.startsWith('HPE_') ? 'REQUEST_MALFORMED' : null;
  }
}
