import { describeError, type ErrorCode } from '../errors.ts';
import { groupBy } from '../group-by.ts';
import { maxAcknowledgedIds, type V2OutgoingMessage } from './wire/v2-message.ts';
import { encodeErrorNotice, sessionChannel } from './wire/v2-session-channel.ts';

/** A message that is not sent yet. */
export type V2Draft = Pick<V2OutgoingMessage, 'type' | 'channel' | 'payloadText' | 'headers'>;

/** Ids have at most 255 characters, each of 3 bytes in UTF-8: no message becomes larger than a record. */
const maxBytesOfIds = 256 * 1024;

/**
 * Tells an agent what became of its messages, many in one record: what has gathered is said once this turn's work is done, and
 * the events of one group are settled in one turn.
 */
export class V2Answers {
  readonly #say: (drafts: readonly V2Draft[]) => void;
  #acknowledged: string[] = [];
  #refused: { readonly id: string; readonly code: ErrorCode }[] = [];

  constructor(say: (drafts: readonly V2Draft[]) => void) {
    this.#say = say;
  }

  /** What the message says is kept. */
  acknowledge(id: string): void {
    this.#schedule();
    this.#acknowledged.push(id);
  }

  /** It is not taken. */
  refuse(id: string, code: ErrorCode): void {
    this.#schedule();
    this.#refused.push({ id, code });
  }

  #schedule(): void {
    if (this.#acknowledged.length + this.#refused.length === 0) queueMicrotask(() => this.#flush());
  }

  #flush(): void {
    const refused = groupBy(this.#refused, ({ code }) => code);
    const drafts = [
      ...chunks(this.#acknowledged).map((ackFor): V2Draft => {
        return { type: 'ack', channel: sessionChannel, payloadText: '{}', headers: { ackFor } };
      }),
      ...[...refused].flatMap(([code, messages]) =>
        chunks(messages.map(({ id }) => id)).map((ackFor) => errorDraft(code, { ackFor })),
      ),
    ];
    this.#acknowledged = [];
    this.#refused = [];
    this.#say(drafts);
  }
}

export function errorDraft(code: ErrorCode, headers: V2Draft['headers'] = {}): V2Draft {
  const { text: message, retryable } = describeError(code);
  const payloadText = JSON.stringify(encodeErrorNotice({ code, message, retryable, retryAfterMs: null }));
  return { type: 'error', channel: sessionChannel, payloadText, headers };
}

function chunks(ids: readonly string[]): string[][] {
  const all: string[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const id of ids) {
    const idBytes = 3 * id.length + 3;
    bytes += idBytes;
    if (bytes > maxBytesOfIds || all.at(-1)?.length === maxAcknowledgedIds) {
      all.push([]);
      bytes = idBytes;
    }
    all.at(-1)?.push(id);
  }
  return all;
}
