import { type FileHandle, open, rm } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { z } from 'zod';
import { commandKinds } from '../../../agent-gateway/wire/channels.ts';
import { AgentError } from '../agent-error.ts';
import type { JournalContents, JournalEntry } from '../store.ts';
import { replaceFile } from './lasting-files.ts';

const itemFields = z.object({
  id: z.string(),
  type: z.enum(['event', 'response', 'error']),
  channel: z.string(),
  payloadText: z.string(),
  timestampMs: z.number(),
  priority: z.enum(['high', 'normal']),
  replyTo: z.string().nullable(),
  traceparent: z.string().nullable(),
});

const commandFields = z.object({
  id: z.string(),
  kind: z.enum(commandKinds),
  payloadText: z.string(),
  takenAtMs: z.number(),
  expiresInMs: z.number().nullable(),
  traceparent: z.string().nullable(),
  isBegun: z.boolean(),
});

const lineFields = z.array(
  z.discriminatedUnion('op', [
    z.object({ op: z.literal('put'), item: itemFields }),
    z.object({ op: z.literal('drop'), ids: z.array(z.string()) }),
    z.object({ op: z.literal('take'), command: commandFields }),
    z.object({ op: z.literal('begin'), id: z.string() }),
    z.object({ op: z.literal('done'), id: z.string() }),
    z.object({ op: z.literal('seen'), ids: z.array(z.string()) }),
  ]),
);

/** A journal is written anew where it is this much longer than what it comes to, and twice as long. */
const slackBytes = 1024 * 1024;
/** What a line of it costs beyond its JSON: a checksum of eight digits, a space, and the end of the line. */
const checksumPattern = /^[0-9a-f]{8} /;

interface Append {
  readonly line: string;
  readonly entries: readonly JournalEntry[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/**
 * A file to which entries are appended, a line for each `append`: `<CRC-32> <JSON array>`. While one group of lines is being
 * written and synced the next one gathers. A last line that was cut short, because the process or the machine ended, is
 * dropped: nobody was told that it lasts. Anything else that is not sound is `STORE_CORRUPT`.
 */
export class JournalFile {
  readonly #file: string;
  readonly #contents: JournalContents;
  #handle: FileHandle;
  /** Of what is known to last. */
  #length: number;
  /** Of the journal when it was last written anew: what it came to. */
  #lengthAnew: number;
  #waiting: Append[] = [];
  #work: Promise<void> | null = null;
  #isFaulty = false;

  private constructor(file: string, handle: FileHandle, contents: JournalContents, length: number) {
    this.#file = file;
    this.#handle = handle;
    this.#contents = contents;
    this.#length = length;
    this.#lengthAnew = 0;
  }

  /** Reads what is there into `contents`. */
  static async open(file: string, contents: JournalContents): Promise<JournalFile> {
    await rm(`${file}.new`, { force: true });
    const handle = await open(file, 'a+', 0o600);
    try {
      const bytes = await handle.readFile();
      const length = bytes.lastIndexOf('\n') + 1;
      if (length < bytes.length) await handle.truncate(length);
      const lines = bytes.subarray(0, length).toString('utf8').split('\n').slice(0, -1);
      for (const [index, line] of lines.entries()) {
        const entries = readLine(line);
        if (!entries) throw new AgentError('STORE_CORRUPT', `${file}, line ${index + 1}`);
        for (const entry of entries) contents.apply(entry);
      }
      return new JournalFile(file, handle, contents, length);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  append(entries: readonly JournalEntry[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ line: writeLine(entries), entries, resolve, reject });
      this.#work ??= this.#writeAll();
    });
  }

  async close(): Promise<void> {
    await this.#work;
    await this.#handle.close();
  }

  async #writeAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const group = this.#waiting.splice(0);
      try {
        await this.#write(group);
        for (const { resolve } of group) resolve();
      } catch (error) {
        for (const { reject } of group) reject(error);
      }
    }
    // In the same turn as the last look at what waits: nothing can come in between.
    this.#work = null;
  }

  async #write(group: readonly Append[]): Promise<void> {
    if (this.#isFaulty) await this.#mend();
    const bytes = Buffer.from(group.map(({ line }) => line).join(''));
    try {
      await this.#handle.appendFile(bytes);
      await this.#handle.datasync();
    } catch (error) {
      this.#isFaulty = true;
      await this.#mend().catch(() => undefined);
      throw error;
    }
    this.#length += bytes.length;
    for (const { entries } of group) for (const entry of entries) this.#contents.apply(entry);
    if (this.#length > 2 * this.#lengthAnew + slackBytes) await this.#writeAnew().catch(() => undefined);
  }

  /** Takes away what a write that failed may have left; nobody was told that it lasts. */
  async #mend(): Promise<void> {
    await this.#handle.truncate(this.#length);
    await this.#handle.datasync();
    this.#isFaulty = false;
  }

  /** As short as it can be. Where that fails the old file stays, and it is not tried again before that has grown as much again. */
  async #writeAnew(): Promise<void> {
    this.#lengthAnew = this.#length;
    const handle = await replaceFile(this.#file, linesOf(this.#contents));
    await this.#handle.close();
    this.#handle = handle;
    this.#length = (await handle.stat()).size;
    this.#lengthAnew = this.#length;
  }
}

function* linesOf(contents: JournalContents): Generator<string> {
  for (const entry of contents.entries()) yield writeLine([entry]);
}

function writeLine(entries: readonly JournalEntry[]): string {
  const json = JSON.stringify(entries);
  return `${checksum(json)} ${json}\n`;
}

/** Null for what was not written here. */
function readLine(line: string): readonly JournalEntry[] | null {
  const json = line.slice(9);
  if (!checksumPattern.test(line) || line.slice(0, 8) !== checksum(json)) return null;
  const entries = lineFields.safeParse(JSON.parse(json));
  return entries.success ? entries.data : null;
}

function checksum(text: string): string {
  return crc32(text).toString(16).padStart(8, '0');
}
