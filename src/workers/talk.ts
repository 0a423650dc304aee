import { z } from 'zod';

/** What workers tell each other. The primary passes it on unread: workers of two builds may run side by side. */
export const subjects = ['bus', 'bodies', 'counts'] as const;
export type Subject = (typeof subjects)[number];

/** Where a worker finds the socket that it listens on: behind the standard streams and the channel. */
export const listenFd = 4;

/** What a worker is when it begins. */
const assignment = z.object({
  /** From 1; a worker that takes another's place has its number. */
  number: z.number(),
  instanceId: z.string(),
  /** What the ids of all workers of this primary begin with. */
  family: z.string(),
  /** The token that was made for this run, the same for all; null where the environment has one or none is made. */
  adminToken: z.string().nullable(),
  /** Base64; so that TLS sessions are resumed with whichever worker. */
  ticketKeys: z.string(),
});
export type Assignment = z.infer<typeof assignment>;

const toWorker = z.discriminatedUnion('say', [
  z.object({ say: z.literal('begin'), assignment }),
  z.object({ say: z.literal('told'), about: z.string(), text: z.string() }),
  z.object({ say: z.literal('report'), id: z.number() }),
  z.object({ say: z.literal('reports'), id: z.number(), texts: z.array(z.string()) }),
  z.object({ say: z.enum(['reload', 'retire', 'stop']) }),
]);
export type ToWorker = z.infer<typeof toWorker>;

const toPrimary = z.discriminatedUnion('say', [
  z.object({ say: z.enum(['hello', 'ready', 'leaving']) }),
  z.object({ say: z.literal('tell'), about: z.string(), text: z.string() }),
  z.object({ say: z.literal('gather'), id: z.number() }),
  z.object({ say: z.literal('reported'), id: z.number(), text: z.string() }),
]);
export type ToPrimary = z.infer<typeof toPrimary>;

/** Null for what this build does not know: the other side may be newer. */
export function readToWorker(message: unknown): ToWorker | null {
  return toWorker.safeParse(message).data ?? null;
}

/** Null for what this build does not know. */
export function readToPrimary(message: unknown): ToPrimary | null {
  return toPrimary.safeParse(message).data ?? null;
}

/** More than this on its way to one process is not added to: what is told may be lost. */
const maxUnsentBytes = 16 * 1024 * 1024;
/** The same for bodies of events, so that they go first: hints tell of them. */
const maxUnsentBodiesBytes = 4 * 1024 * 1024;

/** Calls back once the message is on its way, or with why it is lost. */
export type Send<Message> = (message: Message, sent?: (error: Error | null) => void) => void;

/** `write` as process.send has it. */
export function createSend<Message extends object>(
  write: (message: Message, sent: (error: Error | null) => void) => void,
): Send<Message> {
  let unsentBytes = 0;
  return (message, sent) => {
    const bytes = 'text' in message && typeof message.text === 'string' ? message.text.length : 0;
    const isBodies = 'about' in message && message.about === 'bodies';
    if (bytes > 0 && unsentBytes + bytes > (isBodies ? maxUnsentBodiesBytes : maxUnsentBytes)) {
      sent?.(new Error('more is told than the other process takes'));
      return;
    }
    unsentBytes += bytes;
    write(message, (error) => {
      unsentBytes -= bytes;
      sent?.(error);
    });
  };
}
