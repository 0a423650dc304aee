/** Why bytes from an agent are refused; each is a code of the error catalogue, which a test holds to this list. */
export type WireErrorCode =
  | 'AUTH_MALFORMED'
  | 'HANDSHAKE_FAILED'
  | 'RECORD_INVALID'
  | 'FRAME_MALFORMED'
  | 'FRAME_ID_INVALID'
  | 'FRAME_PAYLOAD_INVALID'
  | 'FRAME_PAYLOAD_TOO_DEEP';

/** What a decoder answers: a value, or the code that says why there is none. Decoders never throw. */
export type Decoded<Value> =
  | { readonly ok: true; readonly value: Value }
  | { readonly ok: false; readonly code: WireErrorCode };

export function decoded<Value>(value: Value): Decoded<Value> {
  return { ok: true, value };
}

export function refused(code: WireErrorCode): { readonly ok: false; readonly code: WireErrorCode } {
  return { ok: false, code };
}
