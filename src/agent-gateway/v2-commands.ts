import type { Command, Confirmation, FrameRecord, WrittenCommand } from '../messages/command-link.ts';
import type { GatewayContext } from './context.ts';
import type { SealedRecord } from './crypto/v2-records.ts';
import { packRecords } from './v2-packing.ts';
import { shortCommandChannelName } from './wire/channels.ts';
import { encodeMessage } from './wire/v2-message.ts';
import type { ErrorNotice, SessionLimits } from './wire/v2-session-channel.ts';

/** A reason is shown to operators and kept with its message. */
const maxReasonLength = 500;

/** The commands of one link, from their writing to the agent's word about each. */
export class V2Commands {
  readonly #time: Pick<GatewayContext, 'clock' | 'wall'>;
  readonly #limits: SessionLimits;
  readonly #writeRecord: (messages: readonly { readonly json: string }[]) => SealedRecord;
  /** Those that wait for the agent's word, by id. */
  readonly #waiting = new Map<string, (confirmation: Confirmation) => void>();

  constructor(
    time: Pick<GatewayContext, 'clock' | 'wall'>,
    limits: SessionLimits,
    writeRecord: (messages: readonly { readonly json: string }[]) => SealedRecord,
  ) {
    this.#time = time;
    this.#limits = limits;
    this.#writeRecord = writeRecord;
  }

  /** As `CommandLink` has it; `canWrite` is asked before each record. */
  write(commands: readonly Command[], canWrite: () => boolean): readonly (WrittenCommand | null)[] {
    const written = new Map<Command, WrittenCommand>();
    const inTime = commands.filter((command) => command.expiresInMs >= 1);
    const messages = inTime.map((command) => ({ command, json: this.#encode(command) }));
    for (const record of packRecords(messages, this.#limits)) {
      if (!canWrite()) break;
      const frames = frameRecords(this.#writeRecord(record), record);
      const confirmations = this.#untilSettled(record.map(({ command }) => command.id));
      for (const [index, { command }] of record.entries()) {
        const [frame, confirmation] = [frames[index], confirmations[index]];
        if (frame && confirmation) written.set(command, { frame, confirmation });
      }
    }
    return commands.map((command) => written.get(command) ?? null);
  }

  /** The agent has taken charge of these, or of nothing where it was not asked. */
  acknowledged(ids: readonly string[]): void {
    for (const id of ids) this.#settle(id, 'read');
  }

  /** The agent does not take these. */
  refused(ids: readonly string[], notice: ErrorNotice | null): void {
    // What may be tried again is as good as not read.
    for (const id of ids) this.#settle(id, notice?.retryable ? 'unread' : { refused: reasonOf(notice) });
  }

  /** No more word of any comes. */
  end(): void {
    for (const id of [...this.#waiting.keys()]) this.#settle(id, 'unread');
  }

  #settle(id: string, confirmation: Confirmation): void {
    this.#waiting.get(id)?.(confirmation);
  }

  /** Settles in time: as unread where no word has come. */
  #untilSettled(ids: readonly string[]): readonly Promise<Confirmation>[] {
    const settles: ((confirmation: Confirmation) => void)[] = [];
    const confirmations = ids.map(
      (id) =>
        new Promise<Confirmation>((resolve) => {
          const settleOnce = (confirmation: Confirmation) => {
            if (this.#waiting.get(id) === settleOnce) this.#waiting.delete(id);
            resolve(confirmation);
          };
          settles.push(settleOnce);
          this.#waiting.set(id, settleOnce);
        }),
    );
    const cancel = this.#time.clock.after(this.#limits.ackTimeoutMs, () => {
      for (const settleOnce of settles) settleOnce('unread');
    });
    void Promise.all(confirmations).then(cancel);
    return confirmations;
  }

  #encode(command: Command): string {
    const { id, type, kind, payload, traceparent, expiresInMs } = command;
    return encodeMessage({
      ...{ id, type, timestampMs: this.#time.wall.now() },
      channel: shortCommandChannelName(kind),
      payloadText: JSON.stringify(payload),
      headers: { expiresInMs: Math.floor(expiresInMs), traceparent },
    });
  }
}

/**
 * What is kept of a record with each of its commands: the frame with the first one, in the others the first one's id; and of
 * all the nonce and the signature inside. Nobody can open it again: its key is erased.
 */
function frameRecords(
  { frame, seq, signature }: SealedRecord,
  commands: readonly { readonly command: Command }[],
): FrameRecord[] {
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64BE(BigInt(seq), 4);
  const common = { nonce: nonce.toString('base64'), signature: Buffer.from(signature).toString('base64') };
  return commands.map((_, index) => ({
    ...common,
    encryptedPayload:
      index === 0 ? Buffer.from(frame).toString('base64') : `in the record of ${commands[0]?.command.id}`,
  }));
}

function reasonOf(notice: ErrorNotice | null): string {
  if (!notice) return 'without a reason';
  const text = `${notice.code}: ${notice.message}`.slice(0, maxReasonLength);
  return text.replaceAll(/[\p{Control}\p{Surrogate}]/gu, ' ');
}
