import { randomUUID } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { isIP } from 'node:net';
import { addressSet, plainAddress } from '../addresses.ts';

/** Where a request comes from, and what it is called in answers and logs. */
export interface RequestOrigin {
  /** The caller's own `X-Request-Id` where it is a sane one, else a random one. */
  readonly requestId: string;
  /** The client's address, beyond the proxies that are trusted; null where the socket has gone already. */
  readonly clientAddress: string | null;
  /** The caller's place in a trace, as W3C Trace Context writes it; null where there is none that is sound. */
  readonly traceparent: string | null;
}

/** What of a request tells where it comes from. */
interface ArrivedRequest {
  readonly socket: { readonly remoteAddress?: string | undefined };
  readonly headers: IncomingHttpHeaders;
}

/** Told of what went wrong in an unforeseen way, and at which request. */
export type LogRequestError = (error: unknown, context: string, requestId: string) => void;

/** Whoever sends more than this, or anything that could mean something in a log or a header, gets an id of ours. */
const saneRequestId = /^[\w.:+/=@-]{1,128}$/;

/** `trustedProxies`: addresses and ranges of those who are believed in what they say of others. */
export function createRequestOrigin(trustedProxies: readonly string[]): (request: ArrivedRequest) => RequestOrigin {
  const trusted = addressSet(trustedProxies);

  /**
   * Each proxy adds at the right whom it heard the request from, so the list is read from there, and only as far as
   * those are trusted who wrote it: what stands beyond is whatever the client cared to send.
   */
  function clientAddress({ socket, headers }: ArrivedRequest): string | null {
    let address = plainAddress(socket.remoteAddress ?? '');
    const forwarded = headers['x-forwarded-for'];
    if (typeof forwarded !== 'string') return address;
    const hops = forwarded.split(',');
    while (address !== null && hops.length > 0 && trusted.has(address)) {
      const hop = addressOfHop(hops.pop() ?? '');
      if (hop === null) return address;
      address = hop;
    }
    return address;
  }

  return (request) => ({
    requestId: requestIdOf(request),
    clientAddress: clientAddress(request),
    traceparent: traceparentIn(request.headers.traceparent),
  });
}

function requestIdOf({ headers }: ArrivedRequest): string {
  const given = headers['x-request-id'];
  return typeof given === 'string' && saneRequestId.test(given) ? given : randomUUID();
}

/** W3C Trace Context, section 3.2.2; later versions may say more at the end. */
const soundTraceparent = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?=$|-)/;

/** A place in a trace, version, trace, span and flags alone; null for anything that is none. */
export function traceparentIn(given: unknown): string | null {
  const [sound] = typeof given === 'string' ? (soundTraceparent.exec(given) ?? []) : [];
  return sound === undefined || (sound.startsWith('00') && sound !== given) ? null : sound;
}

/** Some proxies add the port: `192.0.2.1:4711`, `[2001:db8::1]:4711`. */
function addressOfHop(text: string): string | null {
  const hop = text.trim();
  const [, inBrackets] = /^\[([^\]]+)\](?::\d{1,5})?$/.exec(hop) ?? [];
  if (inBrackets !== undefined) return isIP(inBrackets) === 6 ? plainAddress(inBrackets) : null;
  const [, withoutPort] = /^([\d.]+):\d{1,5}$/.exec(hop) ?? [];
  return plainAddress(withoutPort ?? hop);
}
