import { concatBytes, utf8 } from '../wire/bytes.ts';
import { sessionIdBytes } from '../wire/v2-handshake.ts';
import { maxRecordsPerGeneration } from '../wire/v2-limits.ts';
import {
  type Direction,
  decodeRecord,
  directionBytes,
  encodeRecord,
  maxGeneration,
  splitBody,
  writeCounters,
  writeSeq,
} from '../wire/v2-record.ts';
import type { DirectionKey } from './direction-key.ts';
import { type CryptoSuite, sha256Bytes } from './suite.ts';

/** The records of one direction of one session. */
export interface RecordContext {
  readonly suite: CryptoSuite;
  readonly direction: Direction;
  /** sid, 16 bytes. */
  readonly sessionId: Uint8Array;
  /** h4, 32 bytes. */
  readonly transcriptHash: Uint8Array;
  /** Generation 0; the sealer's or opener's own from then on. */
  readonly key: DirectionKey;
}

/** Why a record was refused, for the metrics; to the other side it is close code 4009 whichever it is. */
export type RecordCause =
  | 'malformed'
  | 'out-of-sequence'
  | 'wrong-generation'
  | 'not-opened'
  | 'wrong-signature'
  | 'closed';

export type OpenedRecord =
  | { readonly ok: true; readonly json: Uint8Array }
  | { readonly ok: false; readonly cause: RecordCause };

export interface SealedRecord {
  /** The binary frame. */
  readonly frame: Uint8Array;
  readonly seq: number;
  /** The Ed25519 signature inside. */
  readonly signature: Uint8Array;
}

/** Signs and seals what one side says. */
export class RecordSealer {
  readonly #bytes: RecordBytes;
  readonly #sign: (message: Uint8Array) => Uint8Array;
  #key: DirectionKey;
  #generation = 0;
  #seq = 0;
  #recordsOfGeneration = 0;

  constructor(context: RecordContext, sign: (message: Uint8Array) => Uint8Array) {
    this.#bytes = new RecordBytes(context);
    this.#sign = sign;
    this.#key = context.key;
  }

  get generation(): number {
    return this.#generation;
  }

  /** The binary frame of the next record, under a new key by itself after 2^20 records. Throws once erased. */
  seal(json: Uint8Array): Uint8Array {
    return this.sealRecord(json).frame;
  }

  /** The same, with what else is known of the record. */
  sealRecord(json: Uint8Array): SealedRecord {
    if (this.#recordsOfGeneration === maxRecordsPerGeneration) this.rekey();
    const [generation, seq] = [this.#generation, this.#seq];
    const signature = this.#sign(this.#bytes.signed(seq, json));
    const body = concatBytes(signature, json);
    const sealed = this.#key.seal(seq, body, this.#bytes.associated(generation, seq));
    this.#seq++;
    this.#recordsOfGeneration++;
    return { frame: encodeRecord({ generation, seq, sealed }), seq, signature };
  }

  /** The next record goes under a new key; the old one is erased. Whoever keeps the time calls it once the key is old. */
  rekey(): void {
    if (this.#generation === maxGeneration) throw new Error('no generation is left');
    const next = this.#key.next();
    this.#key.erase();
    this.#key = next;
    this.#generation++;
    this.#recordsOfGeneration = 0;
  }

  erase(): void {
    this.#key.erase();
  }
}

/** Opens and verifies what the other side says: exactly the next record, or nothing ever again. */
export class RecordOpener {
  readonly #bytes: RecordBytes;
  readonly #verify: (message: Uint8Array, signature: Uint8Array) => boolean;
  #key: DirectionKey;
  #generation = 0;
  #nextSeq = 0;
  #recordsOfGeneration = 0;
  #isClosed = false;

  constructor(context: RecordContext, verify: (message: Uint8Array, signature: Uint8Array) => boolean) {
    this.#bytes = new RecordBytes(context);
    this.#verify = verify;
    this.#key = context.key;
  }

  /** The JSON of a record's messages, exactly as it was signed. After the first refusal everything is refused. */
  open(frame: Uint8Array): OpenedRecord {
    if (this.#isClosed) return { ok: false, cause: 'closed' };
    const opened = this.#open(frame);
    if (!opened.ok) this.erase();
    return opened;
  }

  erase(): void {
    this.#isClosed = true;
    this.#key.erase();
  }

  #open(frame: Uint8Array): OpenedRecord {
    const record = decodeRecord(frame);
    if (!record.ok) return { ok: false, cause: 'malformed' };
    const { generation, seq, sealed } = record.value;
    if (seq !== this.#nextSeq) return { ok: false, cause: 'out-of-sequence' };
    const isNext = generation === this.#generation + 1;
    const isExhausted = !isNext && this.#recordsOfGeneration === maxRecordsPerGeneration;
    if (isExhausted || !(isNext || generation === this.#generation)) return { ok: false, cause: 'wrong-generation' };
    const body = this.#unseal(isNext, seq, sealed, this.#bytes.associated(generation, seq));
    if (!body) return { ok: false, cause: 'not-opened' };
    const { signature, json } = splitBody(body);
    if (!this.#verify(this.#bytes.signed(seq, json), signature)) return { ok: false, cause: 'wrong-signature' };
    this.#nextSeq++;
    this.#recordsOfGeneration++;
    return { ok: true, json };
  }

  /** Moves on to the next generation only after a record under its key has opened. */
  #unseal(isNext: boolean, seq: number, sealed: Uint8Array, associatedData: Uint8Array): Uint8Array | null {
    if (!isNext) return this.#key.open(seq, sealed, associatedData);
    const next = this.#key.next();
    const body = next.open(seq, sealed, associatedData);
    if (!body) {
      next.erase();
      return null;
    }
    this.#key.erase();
    this.#key = next;
    this.#generation++;
    this.#recordsOfGeneration = 0;
    return body;
  }
}

const associatedPrefix = utf8('aegis2 rec\0');
const signedPrefix = utf8('aegis2/msgs\0');
/** One for all sessions, which may be very many and do nothing. */
const associated = concatBytes(associatedPrefix, new Uint8Array(1 + sessionIdBytes + 12));
const signed = concatBytes(signedPrefix, new Uint8Array(sha256Bytes + 1 + 8 + sha256Bytes));

/** What stands around the messages of a direction. */
class RecordBytes {
  readonly #context: Omit<RecordContext, 'key'>;

  constructor(context: RecordContext) {
    const { suite, direction, sessionId, transcriptHash } = context;
    this.#context = { suite, direction, sessionId, transcriptHash };
  }

  /** "aegis2 rec\0" ‖ direction ‖ sid ‖ generation ‖ seq. Valid until the next call, for whatever session. */
  associated(generation: number, seq: number): Uint8Array {
    const { direction, sessionId } = this.#context;
    associated[associatedPrefix.length] = directionBytes[direction];
    associated.set(sessionId, associatedPrefix.length + 1);
    writeCounters(associated, associated.length - 12, generation, seq);
    return associated;
  }

  /** "aegis2/msgs\0" ‖ h4 ‖ direction ‖ seq ‖ H(JSON). Valid until the next call, for whatever session. */
  signed(seq: number, json: Uint8Array): Uint8Array {
    const { suite, direction, transcriptHash } = this.#context;
    signed.set(transcriptHash, signedPrefix.length);
    signed[signedPrefix.length + sha256Bytes] = directionBytes[direction];
    writeSeq(signed, signed.length - 40, seq);
    signed.set(suite.sha256(json), signed.length - sha256Bytes);
    return signed;
  }
}
