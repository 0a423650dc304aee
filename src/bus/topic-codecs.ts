import { z } from 'zod';
import { commandKinds } from '../agent-gateway/wire/channels.ts';
import { messagePriorities, messageStatuses, messageTypes } from '../messages/message.ts';
import type { Topic, Topics } from './bus.ts';

/** What travels between gateways. `events` does not: its bodies are in the database, and `stored` tells where to look. */
export type SharedTopic = Exclude<Topic, 'events'>;

const agentUids = z.array(z.string());
const time = z.coerce.date();

/** The topics as JSON: what another gateway, perhaps of another version, sends is parsed like any other input. */
const codecs: { readonly [T in SharedTopic]: z.ZodType<Topics[T]> } = {
  stored: z.object({ position: z.number() }),
  presence: z.object({ agentUid: z.string(), connected: z.boolean(), at: time, reason: z.string().nullable() }),
  agents: z.object({ agentUids }),
  disconnect: z.object({ agentUids, reason: z.enum(['LINK_DISCONNECTED', 'AGENT_REVOKED']) }),
  queued: z.object({ agentUids }),
  queuedForMany: z.object({}),
  credentials: z.object({ revoked: z.array(z.string()) }),
  messages: z.array(
    z.object({
      id: z.string(),
      sequence: z.number(),
      agentUid: z.string(),
      agentName: z.string(),
      orgId: z.string(),
      kind: z.enum(commandKinds),
      type: z.enum(messageTypes),
      priority: z.enum(messagePriorities),
      status: z.enum(messageStatuses),
      payload: z.unknown(),
      attempts: z.number(),
      maxRetries: z.number(),
      createdAt: time,
      sentAt: time.nullable(),
      deliveredAt: time.nullable(),
      expiresAt: time,
      failure: z.string().nullable(),
      broadcastId: z.string().nullable(),
      // Absent from what the version before says.
      traceparent: z.string().nullable().default(null),
      revision: z.number(),
      history: z.array(
        z.object({
          revision: z.number(),
          status: z.enum(messageStatuses),
          at: time,
          attempts: z.number(),
          failure: z.string().nullable(),
        }),
      ),
    }),
  ),
};

export const sharedTopics: readonly SharedTopic[] = [
  'stored',
  'presence',
  'agents',
  'disconnect',
  'queued',
  'queuedForMany',
  'credentials',
  'messages',
];

/** A topic's message out of JSON. Throws a ZodError for anything else. */
export function parseShared<T extends SharedTopic>(topic: T, value: unknown): Topics[T] {
  const codec: z.ZodType<Topics[T]> = codecs[topic];
  return codec.parse(value);
}
