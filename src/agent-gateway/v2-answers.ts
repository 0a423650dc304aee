import { describeError, type ErrorCode } from '../errors.ts';
import { maxAcknowledgedIds, type V2OutgoingMessage } from './wire/v2-message.ts';
import { encodeErrorNotice, sessionChannel } from './wire/v2-session-channel.ts';

/** A message that is not sent yet. */
export type V2Draft = Pick<V2OutgoingMessage, 'type' | 'channel' | 'payloadText' | 'headers'>;

/** Tells an agent what became of its messages, many in one record. */
export interface V2Answers {
  /** What the message says is kept. */
  acknowledge(id: string): void;
  /** It is not taken. */
  refuse(id: string, code: ErrorCode): void;
}

/** Ids have at most 255 characters, each of 3 bytes in UTF-8: no message becomes larger than a record. */
const maxBytesOfIds = 256 * 1024;

/** Says what has gathered once this turn's work is done: the events of one group are settled in one turn. */
export function createV2Answers(say: (drafts: readonly V2Draft[]) => void): V2Answers {
  let acknowledged: string[] = [];
  let refused = new Map<ErrorCode, string[]>();
  let isDue = false;

  function flush(): void {
    const drafts = [
      ...chunks(acknowledged).map((ackFor): V2Draft => {
        return { type: 'ack', channel: sessionChannel, payloadText: '{}', headers: { ackFor } };
      }),
      ...[...refused].flatMap(([code, ids]) => chunks(ids).map((ackFor) => errorDraft(code, { ackFor }))),
    ];
    acknowledged = [];
    refused = new Map();
    isDue = false;
    say(drafts);
  }

  function schedule(): void {
    if (isDue) return;
    isDue = true;
    queueMicrotask(flush);
  }

  return {
    acknowledge(id) {
      acknowledged.push(id);
      schedule();
    },
    refuse(id, code) {
      const ids = refused.get(code) ?? [];
      ids.push(id);
      refused.set(code, ids);
      schedule();
    },
  };
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
