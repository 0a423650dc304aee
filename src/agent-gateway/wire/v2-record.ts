import { type Decoded, decoded, refused } from './errors.ts';

/** A record as it stands in a binary frame: 0x02, the generation, the sequence number, and what is sealed. */
export interface V2Record {
  /** Counts the keys of one direction, from 0. */
  readonly generation: number;
  /** Counts the records of one direction, from 0. */
  readonly seq: number;
  readonly sealed: Uint8Array;
}

/** Which way a record goes; its byte is in what is sealed and in what is signed. */
export const directionBytes = { agentToGateway: 0x00, gatewayToAgent: 0x01 } as const;
export type Direction = keyof typeof directionBytes;

export const maxGeneration = 0xffff_ffff;
const recordMark = 0x02;
const headerBytes = 13;
const signatureBytes = 64;
const tagBytes = 16;

/** Bytes of a record beyond the JSON of its messages. */
export const recordOverheadBytes = headerBytes + signatureBytes + tagBytes;

export function encodeRecord({ generation, seq, sealed }: V2Record): Uint8Array {
  const frame = new Uint8Array(headerBytes + sealed.length);
  frame[0] = recordMark;
  writeCounters(frame, 1, generation, seq);
  frame.set(sealed, headerBytes);
  return frame;
}

/** Refused as RECORD_INVALID: what is too short, of another kind, or counts beyond 2^53. `sealed` is a view of the frame. */
export function decodeRecord(frame: Uint8Array): Decoded<V2Record> {
  if (frame.length <= recordOverheadBytes || frame[0] !== recordMark) return refused('RECORD_INVALID');
  const view = new DataView(frame.buffer, frame.byteOffset, headerBytes);
  const seq = view.getUint32(5) * 2 ** 32 + view.getUint32(9);
  if (!Number.isSafeInteger(seq)) return refused('RECORD_INVALID');
  return decoded({ generation: view.getUint32(1), seq, sealed: frame.subarray(headerBytes) });
}

/** A u32 and a u64, big endian. */
export function writeCounters(target: Uint8Array, offset: number, generation: number, seq: number): void {
  new DataView(target.buffer, target.byteOffset).setUint32(offset, generation);
  writeSeq(target, offset + 4, seq);
}

/** A u64, big endian. */
export function writeSeq(target: Uint8Array, offset: number, seq: number): void {
  const view = new DataView(target.buffer, target.byteOffset);
  view.setUint32(offset, Math.floor(seq / 2 ** 32));
  view.setUint32(offset + 4, seq >>> 0);
}

/** The signature and the JSON of a record that has been opened, as views of it. */
export function splitBody(body: Uint8Array): { readonly signature: Uint8Array; readonly json: Uint8Array } {
  return { signature: body.subarray(0, signatureBytes), json: body.subarray(signatureBytes) };
}
