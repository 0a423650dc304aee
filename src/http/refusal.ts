import { STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { describeError, type ErrorCode } from '../errors.ts';

/**
 * Answers on a bare socket with an error's HTTP status, and ends the connection: for upgrades that are refused and for what
 * never became a request. A peer that keeps its side open is cut off by the server's own patience with idle sockets.
 */
export function refuseOnSocket(
  socket: Duplex,
  code: ErrorCode,
  options: { readonly detail?: string | undefined; readonly headers?: Readonly<Record<string, string>> } = {},
): void {
  const { httpStatus, text } = describeError(code);
  const body = JSON.stringify({ code, detail: options.detail ?? text, status: httpStatus });
  const headers = {
    ...options.headers,
    ...(httpStatus === 503 ? { 'retry-after': '1' } : {}),
    connection: 'close',
    'content-type': 'application/problem+json',
    'content-length': Buffer.byteLength(body),
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.on('error', () => socket.destroy());
  socket.end(`HTTP/1.1 ${httpStatus} ${STATUS_CODES[httpStatus]}\r\n${lines.join('')}\r\n${body}`);
}
