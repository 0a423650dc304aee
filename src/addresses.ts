import { BlockList, isIP } from 'node:net';

/** Some addresses, and ranges of them. */
export interface AddressSet {
  has(address: string): boolean;
}

/** Whether a text is an address, or a range in CIDR notation such as `10.0.0.0/8`. */
export function isAddressRange(text: string): boolean {
  return parseRange(text) !== null;
}

/** Throws what is no address and no range. */
export function addressSet(ranges: readonly string[]): AddressSet {
  const list = new BlockList();
  for (const text of ranges) {
    const range = parseRange(text);
    if (!range) throw new Error(`not an address and not a range: ${text}`);
    list.addSubnet(range.address, range.prefixBits, range.family);
  }
  return { has: (address) => list.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4') };
}

function parseRange(text: string) {
  const [address = '', prefix, ...more] = text.split('/');
  const version = address.includes('%') ? 0 : isIP(address);
  const mostBits = version === 6 ? 128 : 32;
  const prefixBits = prefix === undefined ? mostBits : /^\d{1,3}$/.test(prefix) ? Number(prefix) : Number.NaN;
  if (version === 0 || more.length > 0 || !(prefixBits <= mostBits)) return null;
  return { address, prefixBits, family: version === 6 ? ('ipv6' as const) : ('ipv4' as const) };
}

/**
 * An address in the one form that it has here, so that equal ones are equal texts: IPv4 as such where a socket tells it as
 * IPv6 (`::ffff:10.0.0.1`), IPv6 as RFC 5952 has it, without a zone. Null for what is no address.
 */
export function plainAddress(text: string): string | null {
  const version = isIP(text);
  if (version !== 6) return version === 4 ? text : null;
  const [withoutZone = ''] = text.split('%');
  const canonical = new URL(`http://[${withoutZone}]`).hostname.slice(1, -1);
  const [, high, low] = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(canonical) ?? [];
  if (high === undefined || low === undefined) return canonical;
  const bytes = [high, low].flatMap((word) => [Number.parseInt(word, 16) >> 8, Number.parseInt(word, 16) & 0xff]);
  return bytes.join('.');
}

/**
 * What is counted as one place that peers come from: an IPv4 address, or the /64 of an IPv6 address, all of which is one
 * customer's as a rule (RFC 6177). `address` as `plainAddress` gives it.
 */
export function networkOf(address: string): string {
  if (!address.includes(':')) return address;
  const [front = '', back] = address.split('::');
  const groups = front.split(':').filter((group) => group !== '');
  const after = back === undefined ? [] : back.split(':').filter((group) => group !== '');
  const zeros = Array.from({ length: back === undefined ? 0 : 8 - groups.length - after.length }, () => '0');
  return `${[...groups, ...zeros, ...after].slice(0, 4).join(':')}::/64`;
}

const loopback = addressSet(['127.0.0.0/8', '::1']);

/** Whether only this machine reaches a host to listen on. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || (isIP(host) !== 0 && loopback.has(host));
}
