import { createRoute, z } from '@hono/zod-openapi';
import { commandChannelName, shortCommandChannelName } from '../agent-gateway/wire/channels.ts';
import { AegisError } from '../errors.ts';
import type { Broadcast, BroadcastProgress, Message } from '../messages/message.ts';
import { needing } from './credentials.ts';
import type { RestApp } from './environment.ts';
import { problemResponses } from './error-responses.ts';
import { time } from './fields.ts';
import type { RestServices } from './services.ts';

const shownStatuses = ['queued', 'sent', 'delivered', 'failed', 'expired', 'cancelled'] as const;

const messageSchema = z
  .object({
    message_id: z.uuid(),
    agent_id: z.string(),
    channel: z.string().openapi({ example: 'backend.host-1.policies' }),
    status: z.enum(shownStatuses),
    attempts: z.int(),
    created_at: time,
    sent_at: time.nullable(),
    delivered_at: time.nullable(),
    expires_at: time,
    failure: z.string().nullable().openapi({ description: 'Why it failed, for an operator to read.' }),
  })
  .openapi('Message');

const broadcastSchema = z
  .object({
    message_id: z.uuid(),
    channel: z.string().openapi({ example: 'backend.policies' }),
    created_at: time,
    progress: z.object({
      targets: z.int(),
      queued: z.int(),
      sent: z.int(),
      delivered: z.int(),
      failed: z.int(),
      expired: z.int(),
      cancelled: z.int(),
    }),
  })
  .openapi('Broadcast');

const messageRoute = createRoute({
  method: 'get',
  path: '/api/v1/messages/{message_id}',
  operationId: 'getMessage',
  summary: 'What became of a message or a broadcast',
  tags: ['messages'],
  ...needing('messages:read'),
  request: { params: z.object({ message_id: z.uuid() }) },
  responses: {
    200: {
      description: 'The message or the broadcast',
      content: { 'application/json': { schema: z.union([messageSchema, broadcastSchema]) } },
    },
    ...problemResponses('UNAUTHENTICATED', 'FORBIDDEN', 'RATE_LIMITED', 'MESSAGE_NOT_FOUND', 'INTERNAL_SERVER_ERROR'),
  },
});

const noProgress: BroadcastProgress = {
  targets: 0,
  queued: 0,
  sent: 0,
  delivered: 0,
  failed: 0,
  expired: 0,
  cancelled: 0,
};

/** `GET /api/v1/messages/{message_id}` */
export function addMessageRoute(app: RestApp, { messages }: Pick<RestServices, 'messages'>): void {
  app.openapi(messageRoute, async (c) => {
    const id = c.req.valid('param').message_id;
    const message = await messages.find(c.var.consumer, id);
    if (message !== null) return c.json(messageBody(message), 200);
    const broadcast = await messages.findBroadcast(c.var.consumer, id);
    if (broadcast === null) throw new AegisError('MESSAGE_NOT_FOUND');
    const progress = await messages.progress(c.var.consumer, [broadcast.id]);
    return c.json(broadcastBody(broadcast, progress.get(broadcast.id) ?? noProgress), 200);
  });
}

function messageBody(message: Message): z.infer<typeof messageSchema> {
  return {
    message_id: message.id,
    agent_id: message.agentName,
    channel: commandChannelName(message.agentName, message.kind),
    status: message.status === 'pending' ? 'queued' : message.status,
    attempts: message.attempts,
    created_at: message.createdAt.toISOString(),
    sent_at: message.sentAt?.toISOString() ?? null,
    delivered_at: message.deliveredAt?.toISOString() ?? null,
    expires_at: message.expiresAt.toISOString(),
    failure: message.failure,
  };
}

function broadcastBody(broadcast: Broadcast, progress: BroadcastProgress): z.infer<typeof broadcastSchema> {
  return {
    message_id: broadcast.id,
    channel: shortCommandChannelName(broadcast.kind),
    created_at: broadcast.createdAt.toISOString(),
    progress: { ...progress },
  };
}
