import { type ServerResponse, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { describeError, type ErrorCode } from '../errors.ts';
import type { RefusedUpgrade } from './upgrade.ts';

/** Answers an error before any route is asked, and ends the connection once it has left. */
export function refuseRequest(response: ServerResponse, code: ErrorCode): void {
  const { status, headers, body } = refusal(code, {});
  response.writeHead(status, headers);
  response.end(body);
}

/**
 * The same on a bare socket: for upgrades that are refused and for what never became a request. A peer that keeps its side
 * open is cut off by the server's own patience with idle sockets.
 */
export function refuseOnSocket(
  socket: Duplex,
  code: ErrorCode,
  options: RefusedUpgrade & { readonly headers: Readonly<Record<string, string>> },
): void {
  const { status, headers, body } = refusal(code, options);
  const lines = Object.entries({ ...options.headers, ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.on('error', () => socket.destroy());
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`);
}

function refusal(code: ErrorCode, { detail, retryAfterSeconds = 1 }: RefusedUpgrade) {
  const { httpStatus: status, text } = describeError(code);
  const body = JSON.stringify({ code, detail: detail ?? text, status });
  const headers = {
    ...(status === 503 || status === 429 ? { 'retry-after': String(retryAfterSeconds) } : {}),
    connection: 'close',
    'content-type': 'application/problem+json',
    'content-length': Buffer.byteLength(body),
  };
  return { status, headers, body };
}
