/**
 * What Ed25519 inputs are refused before any verification, so that every implementation answers alike.
 * RFC 8032 leaves room here; libraries differ on small-order and non-canonical points.
 */

/** 2^255 - 19, the field prime, little endian. */
const fieldPrime = Uint8Array.from([0xed, ...new Array<number>(30).fill(0xff), 0x7f]);

/** The group order L = 2^252 + 27742317777372353535851937790883648493, little endian (RFC 8032, section 5.1). */
const groupOrder = Uint8Array.from([
  0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0,
  0, 0, 0, 0, 0, 0, 0, 0, 0x10,
]);

/** The y coordinates of the eight points of small order, canonical, little endian, sign bit clear. */
const smallOrderY: readonly Uint8Array[] = [
  littleEndian('0000000000000000000000000000000000000000000000000000000000000000'),
  littleEndian('0100000000000000000000000000000000000000000000000000000000000000'),
  littleEndian('ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f'),
  littleEndian('26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05'),
  littleEndian('c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a'),
];

/** Whether a 32-byte point encoding is canonical (y < p) and not of small order. Does not tell whether it is on the curve. */
export function isSoundPointEncoding(point: Uint8Array): boolean {
  const y = Uint8Array.from(point);
  const top = y[31] ?? 0;
  y[31] = top & 0x7f;
  return isLess(y, fieldPrime) && !smallOrderY.some((small) => isEqual(small, y));
}

/** Whether a 32-byte scalar, little endian, is below the group order (RFC 8032, section 5.1.7, step 1). */
export function isCanonicalScalar(scalar: Uint8Array): boolean {
  return isLess(scalar, groupOrder);
}

function isLess(left: Uint8Array, right: Uint8Array): boolean {
  for (let index = 31; index >= 0; index--) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

function isEqual(left: Uint8Array, right: Uint8Array): boolean {
  return left.every((byte, index) => byte === right[index]);
}

function littleEndian(hex: string): Uint8Array {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}
