import { utf8 } from './wire/bytes.ts';
import { recordOverheadBytes } from './wire/v2-record.ts';
import type { SessionLimits } from './wire/v2-session-channel.ts';

/** Encoded messages, in their order, in as few records as the limits allow. One that is too large by itself has one to itself. */
export function packRecords<Item extends { readonly json: string }>(
  messages: readonly Item[],
  limits: Pick<SessionLimits, 'maxRecordBytes' | 'maxBatchMessages'>,
): Item[][] {
  const maxBytes = limits.maxRecordBytes - recordOverheadBytes - '[]'.length;
  const records: Item[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const message of messages) {
    const messageBytes = Buffer.byteLength(message.json) + ','.length;
    bytes += messageBytes;
    if (bytes > maxBytes || records.at(-1)?.length === limits.maxBatchMessages) {
      records.push([]);
      bytes = messageBytes;
    }
    records.at(-1)?.push(message);
  }
  return records;
}

/** The JSON of one record. */
export function recordJson(messages: readonly { readonly json: string }[]): Uint8Array {
  return utf8(`[${messages.map(({ json }) => json).join(',')}]`);
}
