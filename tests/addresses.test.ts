import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { addressSet, isAddressRange, isLoopback, networkOf, plainAddress } from '../src/addresses.ts';

describe('a set of addresses', () => {
  const set = addressSet(['10.0.0.0/8', '192.0.2.7', '2001:db8::/32', '::1']);

  it.each(['10.0.0.0', '10.255.255.255', '192.0.2.7', '2001:db8::', '2001:db8:ffff::1', '::1'])('has %s', (address) => {
    expect(set.has(address)).toBe(true);
  });

  it.each(['9.255.255.255', '11.0.0.0', '192.0.2.6', '192.0.2.8', '2001:db7::1', '2001:db9::', '::2'])(
    'has not %s',
    (address) => {
      expect(set.has(address)).toBe(false);
    },
  );

  it('that is empty has nothing', () => {
    for (const address of ['0.0.0.0', '127.0.0.1', '::', '::1']) expect(addressSet([]).has(address)).toBe(false);
  });

  it('takes no text for a range that is none', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        if (isAddressRange(text)) expect(() => addressSet([text])).not.toThrow();
        else expect(() => addressSet([text])).toThrow('not an address');
      }),
    );
  });

  it('of one address has exactly that address', () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), fc.oneof(fc.ipV4(), fc.ipV6()), (one, other) => {
        const [plain, otherPlain] = [plainAddress(one), plainAddress(other)];
        if (plain === null || otherPlain === null) throw new Error('no address');
        expect(addressSet([one]).has(plain)).toBe(true);
        expect(addressSet([one]).has(otherPlain)).toBe(plain === otherPlain);
      }),
    );
  });
});

describe('an address', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:c000:0201', '192.0.2.1'],
    ['0:0:0:0:0:ffff:c000:201', '192.0.2.1'],
    ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['::', '::'],
  ])('%s is %s', (text, plain) => {
    expect(plainAddress(text)).toBe(plain);
  });

  it.each([
    '',
    'localhost',
    '192.0.2',
    '192.0.2.256',
    '192.0.2.01',
    ' 192.0.2.1',
    '[::1]',
    '0x7f.0.0.1',
    '1',
    'unknown',
  ])('is not %j', (text) => {
    expect(plainAddress(text)).toBeNull();
  });

  it('has one form', () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6(), fc.string()), (text) => {
        const plain = plainAddress(text);
        if (plain !== null) expect(plainAddress(plain)).toBe(plain);
      }),
    );
  });
});

describe('the network of an address', () => {
  it.each([
    ['192.0.2.7', '192.0.2.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['2001:db8:1:2::', '2001:db8:1:2::/64'],
    ['::1', '0:0:0:0::/64'],
  ])('of %s is %s', (address, network) => {
    expect(networkOf(address)).toBe(network);
  });

  it('is one for all whose first four groups are the same, and for no others', () => {
    const groups = (count: number) =>
      fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: count, maxLength: count });
    const written = (...parts: number[][]) =>
      plainAddress(
        parts
          .flat()
          .map((group) => group.toString(16))
          .join(':'),
      ) ?? '';
    fc.assert(
      fc.property(groups(4), groups(4), groups(4), groups(4), (net, other, host, host2) => {
        expect(networkOf(written(net, host))).toBe(networkOf(written(net, host2)));
        if (`${net}` !== `${other}`) expect(networkOf(written(net, host))).not.toBe(networkOf(written(other, host)));
      }),
    );
  });
});

describe('a host to listen on', () => {
  it.each(['localhost', '127.0.0.1', '127.255.255.254', '::1'])('%s is this machine alone', (host) => {
    expect(isLoopback(host)).toBe(true);
  });

  it.each(['0.0.0.0', '::', '128.0.0.1', '126.255.255.255', 'localhost.example', '', '::ffff:10.0.0.1'])(
    '%j is not',
    (host) => {
      expect(isLoopback(host)).toBe(false);
    },
  );
});
