import { z } from 'zod';
import type { Topic, Topics } from './bus.ts';

/** What travels between gateways as hints: without bodies, which are in the database, where `stored` and `changed` say. */
export type SharedTopic = Exclude<Topic, 'events' | 'bodies' | 'messages' | 'missed'>;

/** Tells the other gateways. */
export interface Telling {
  readonly tell: <T extends SharedTopic>(topic: T, hint: Topics[T]) => void;
  /** The text of a group of events, made only where one of them takes it. */
  readonly tellBody: (text: () => string) => void;
}

const strings = z.array(z.string());
const agentHint = z.object({ agentUids: strings });
const nothing = z.object({});

/** The topics as JSON: what another gateway, perhaps of another version, sends is parsed like any other input. */
const schemas: { readonly [T in SharedTopic]: z.ZodType<Topics[T]> } = {
  stored: z.object({ position: z.number() }),
  presence: z.object({
    agentUid: z.string(),
    epoch: z.number(),
    connected: z.boolean(),
    at: z.coerce.date(),
    reason: z.string().nullable(),
  }),
  agents: agentHint,
  disconnect: z.object({ agentUids: strings, reason: z.enum(['LINK_DISCONNECTED', 'AGENT_REVOKED']) }),
  owned: z.array(z.object({ agentUid: z.string(), epoch: z.number() })),
  queued: agentHint,
  queuedForMany: nothing,
  credentials: z.object({ revoked: strings }),
  changed: z.array(z.object({ id: z.string(), agentUid: z.string(), broadcastId: z.string().nullable() })),
};

const abroad: { readonly [T in Topic]: (message: Topics[T], telling: Telling) => void } = {
  stored: (hint, { tell }) => tell('stored', hint),
  presence: (hint, { tell }) => tell('presence', hint),
  agents: (hint, { tell }) => tell('agents', hint),
  disconnect: (hint, { tell }) => tell('disconnect', hint),
  owned: (hint, { tell }) => tell('owned', hint),
  queued: (hint, { tell }) => tell('queued', hint),
  queuedForMany: (hint, { tell }) => tell('queuedForMany', hint),
  credentials: (hint, { tell }) => tell('credentials', hint),
  changed: (hint, { tell }) => tell('changed', hint),
  events({ events, text }, { tell, tellBody }) {
    const last = events.at(-1);
    if (!last) return;
    tellBody(text);
    tell('stored', { position: last.position });
  },
  bodies: () => {},
  missed: () => {},
  messages: (messages, { tell }) =>
    tell(
      'changed',
      messages.map(({ id, agentUid, broadcastId }) => ({ id, agentUid, broadcastId })),
    ),
};

const lastOf = <Hint>(hints: readonly Hint[]) => hints.slice(-1);
const eachOf = <Hint>(hints: readonly Hint[]) => hints;
const agentsOf = (hints: readonly Topics['agents'][]) => [
  { agentUids: [...new Set(hints.flatMap(({ agentUids }) => agentUids))] },
];

/** What says the same as all of these hints, which one gateway gives in this order, in few words. */
const mergers: { readonly [T in SharedTopic]: (hints: readonly Topics[T][]) => readonly Topics[T][] } = {
  stored: (hints) => [{ position: Math.max(...hints.map(({ position }) => position)) }],
  presence: eachOf,
  agents: agentsOf,
  disconnect: eachOf,
  owned: (hints) => [hints.flat()],
  queued: agentsOf,
  queuedForMany: lastOf,
  credentials: eachOf,
  changed: (hints) => [hints.flat()],
};

/** Tells the other gateways of what is published here, as far as it is for them. */
export function tellAbroad<T extends Topic>(topic: T, message: Topics[T], telling: Telling): void {
  const how: (message: Topics[T], telling: Telling) => void = abroad[topic];
  how(message, telling);
}

/** As few hints as say the same. */
export function merged<T extends SharedTopic>(topic: T, hints: readonly Topics[T][]): readonly Topics[T][] {
  const merge: (hints: readonly Topics[T][]) => readonly Topics[T][] = mergers[topic];
  return hints.length === 1 ? hints : merge(hints);
}

export function isSharedTopic(topic: string): topic is SharedTopic {
  return Object.hasOwn(schemas, topic);
}

/** A hint out of JSON; null for anything else. */
export function parseHint<T extends SharedTopic>(topic: T, value: unknown): Topics[T] | null {
  const schema: z.ZodType<Topics[T]> = schemas[topic];
  return schema.safeParse(value).data ?? null;
}
