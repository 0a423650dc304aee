import type { ProofCause } from './v2-proofs.ts';

/**
 * Why a handshake failed, for metrics and for whoever runs this side. The other side is told one thing whichever it is: close
 * code 4001, or a connection that ends.
 */
export type HandshakeCause =
  | ProofCause
  | 'channel-binding'
  | 'no-shared-secret'
  | 'unknown-gateway-key'
  | 'identity'
  | 'out-of-order';

/** A frame taken: what comes of it, or why the handshake is over. */
export type HandshakeStep<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly cause: HandshakeCause };

/** Fixed values in the place of fresh ones, for test vectors alone. */
export interface HandshakeRandomness {
  /** An X25519 private key, 32 bytes. */
  readonly ephemeral: Uint8Array;
  /** 32 bytes. */
  readonly nonce: Uint8Array;
}
