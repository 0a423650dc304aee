import { createRoute, z } from '@hono/zod-openapi';
import type { Scope } from '../access/scope.ts';
import { AegisError } from '../errors.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { Message, MessageStatus } from '../messages/message.ts';
import { needing } from './credentials.ts';
import type { RestApp } from './environment.ts';
import { problemResponses } from './error-responses.ts';
import { agentRef } from './fields.ts';
import { jsonBody, readJsonBody } from './json-body.ts';
import { commandChannel, draftSchema, idempotencyHeader, messageDraft } from './message-draft.ts';
import type { RestServices } from './services.ts';

/** How long an answer waits for the frame to be written. */
const writtenWithinMs = 1_000;

const outcomes = ['sent', 'queued', 'failed'] as const;

/** What became of a message, in the three words that callers of `send` and `broadcast` know. */
export type Outcome = (typeof outcomes)[number];

const sentSchema = z
  .object({ message_id: z.uuid(), status: z.enum(outcomes) })
  .openapi('SendResult', { description: 'Follow the message at /api/v1/messages/{message_id}.' });

const sentContent = { 'application/json': { schema: sentSchema } };

const sendRoute = createRoute({
  method: 'post',
  path: '/api/v1/agents/{id}/send',
  operationId: 'sendMessage',
  summary: 'Send a message to one agent',
  description:
    'Answers when the message is durable and its frame is written or has to wait, after one second at the latest.',
  tags: ['messages'],
  ...needing('messages:send', readJsonBody),
  request: {
    params: z.object({ id: agentRef }),
    headers: idempotencyHeader,
    body: jsonBody(draftSchema('request').openapi('SendRequest')),
  },
  responses: {
    200: {
      description: '`sent`: written to the agent, or already delivered; `failed`: it never will be',
      content: sentContent,
    },
    202: { description: '`queued`: goes out when the agent can take it', content: sentContent },
    ...problemResponses(
      'BAD_USER_INPUT',
      'CHANNEL_UNKNOWN',
      'UNAUTHENTICATED',
      'FORBIDDEN',
      'RATE_LIMITED',
      'AGENT_REVOKED',
      'AGENT_NOT_FOUND',
      'AGENT_NAME_AMBIGUOUS',
      'CHANNEL_CLOSED',
      'PAYLOAD_TOO_LARGE',
      'IDEMPOTENCY_CONFLICT',
      'QUEUE_FULL',
      'INTERNAL_SERVER_ERROR',
    ),
  },
});

/** `POST /api/v1/agents/{id}/send` */
export function addSendRoute(app: RestApp, { fleet, messages }: Pick<RestServices, 'fleet' | 'messages'>): void {
  app.openapi(sendRoute, async (c) => {
    const { id } = c.req.valid('param');
    const body = c.req.valid('json');
    const channel = commandChannel(body.channel);
    if (channel.agentRef !== null) await checkSameAgent(fleet, c.var.consumer, id, channel.agentRef);
    const draft = messageDraft(channel.kind, body, c.req.valid('header')['Idempotency-Key']);
    const accepted = await messages.send(c.var.consumer, id, draft);
    const settled = (await canBeWritten(fleet, c.var.consumer, accepted))
      ? await messages.untilWritten(accepted, writtenWithinMs)
      : accepted;
    const outcome = outcomeOf(settled.status);
    return c.json({ message_id: accepted.id, status: outcome }, outcome === 'queued' ? 202 : 200);
  });
}

/** The outcome that a status is; final statuses that no agent saw are failures. */
export function outcomeOf(status: MessageStatus): Outcome {
  if (status === 'pending') return 'queued';
  return status === 'sent' || status === 'delivered' ? 'sent' : 'failed';
}

/** Whether waiting for the frame makes sense: nothing is written to an agent that is not connected. */
async function canBeWritten(fleet: Fleet, scope: Scope, message: Message): Promise<boolean> {
  if (message.status !== 'pending') return false;
  const [agent] = await fleet.findAll(scope, [message.agentUid]);
  return agent !== undefined && agent.session !== null;
}

/** Throws AGENT_NOT_FOUND for the route's agent, BAD_USER_INPUT where the channel names another one. */
async function checkSameAgent(fleet: Fleet, scope: Scope, routeRef: string, channelRef: string): Promise<void> {
  if (routeRef === channelRef) return;
  const agent = await fleet.find(scope, routeRef);
  if (agent === null) throw new AegisError('AGENT_NOT_FOUND');
  if (channelRef !== agent.name && channelRef.toLowerCase() !== agent.uid)
    throw new AegisError('BAD_USER_INPUT', 'channel: names another agent than the route');
}
