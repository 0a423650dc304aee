import type { CryptoSuite } from './suite.ts';

const rekeyLabel = new TextEncoder().encode('aegis2 rekey');

/**
 * A ChaCha20-Poly1305 key of one direction. Its nonces are a counter: four zero bytes, then 64 bits, big endian. Sealing takes
 * each counter once and in rising order, and throws otherwise, whatever the caller does. The bytes given to it are its own
 * from then on; `erase` overwrites them.
 */
export class DirectionKey {
  readonly #suite: CryptoSuite;
  readonly #key: Uint8Array;
  #nextCounter = 0;
  #isErased = false;

  constructor(suite: CryptoSuite, key: Uint8Array) {
    this.#suite = suite;
    this.#key = key;
  }

  /** Throws an Error where the counter, or one above it, has been used, and once the key has been erased. */
  seal(counter: number, plaintext: Uint8Array, associatedData: Uint8Array): Uint8Array {
    if (!Number.isSafeInteger(counter) || counter < this.#nextCounter) throw new Error('a nonce is used once');
    const key = this.#usable();
    this.#nextCounter = counter + 1;
    return this.#suite.seal(key, nonceOf(counter), plaintext, associatedData);
  }

  /** Null for anything that `seal` did not make with this key, counter and associated data. Throws once the key has been erased. */
  open(counter: number, sealed: Uint8Array, associatedData: Uint8Array): Uint8Array | null {
    return this.#suite.open(this.#usable(), nonceOf(counter), sealed, associatedData);
  }

  /** The key of the next generation, which tells nothing of this one. Both live until they are erased. */
  next(): DirectionKey {
    return new DirectionKey(this.#suite, this.#suite.hkdfExpand(this.#usable(), rekeyLabel, this.#key.length));
  }

  erase(): void {
    this.#isErased = true;
    this.#key.fill(0);
  }

  #usable(): Uint8Array {
    if (this.#isErased) throw new Error('the key has been erased');
    return this.#key;
  }
}

function nonceOf(counter: number): Uint8Array {
  const nonce = new Uint8Array(12);
  const view = new DataView(nonce.buffer);
  view.setUint32(4, Math.floor(counter / 2 ** 32));
  view.setUint32(8, counter >>> 0);
  return nonce;
}
