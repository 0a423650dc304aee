import { createRoute, z } from '@hono/zod-openapi';
import type { Scope } from '../access/scope.ts';
import { AegisError } from '../errors.ts';
import { needing } from './credentials.ts';
import type { RestApp } from './environment.ts';
import { problemResponses } from './error-responses.ts';
import { jsonBody, readJsonBody } from './json-body.ts';
import { commandChannel, draftSchema, idempotencyHeader, messageDraft } from './message-draft.ts';
import { type Outcome, outcomeOf } from './send-route.ts';
import type { RestServices } from './services.ts';

/** How long after the request came the frames may take; the rest of the promised 2 s is for reading what became of them. */
const writtenWithinMs = 1_500;
const pollIntervalMs = 50;

const names = z.array(z.string());

const broadcastSchema = z
  .object({
    message_id: z.uuid().openapi({ description: 'Names the broadcast.' }),
    sent_to: names.openapi({ description: 'Agents to whom the frame is written.' }),
    failed: names.openapi({ description: 'Agents that never get it.' }),
    queued: names.openapi({ description: 'Agents that get it when they can take it.' }),
  })
  .openapi('BroadcastResult');

const broadcastRoute = createRoute({
  method: 'post',
  path: '/api/v1/agents/broadcast',
  operationId: 'broadcastMessage',
  summary: 'Send a message to every approved agent',
  description: 'Answers within two seconds, when all messages are durable and every frame is written or has to wait.',
  tags: ['messages'],
  ...needing('messages:send', readJsonBody),
  request: { headers: idempotencyHeader, body: jsonBody(draftSchema('event').openapi('BroadcastRequest')) },
  responses: {
    200: { description: 'Who got it', content: { 'application/json': { schema: broadcastSchema } } },
    ...problemResponses(
      'BAD_USER_INPUT',
      'CHANNEL_UNKNOWN',
      'UNAUTHENTICATED',
      'FORBIDDEN',
      'RATE_LIMITED',
      'PAYLOAD_TOO_LARGE',
      'IDEMPOTENCY_CONFLICT',
      'INTERNAL_SERVER_ERROR',
    ),
  },
});

type Services = Pick<RestServices, 'messages' | 'clock'>;

/** `POST /api/v1/agents/broadcast` */
export function addBroadcastRoute(app: RestApp, services: Services): void {
  const { messages, clock } = services;
  app.openapi(broadcastRoute, async (c) => {
    const deadlineAt = clock.now() + writtenWithinMs;
    const body = c.req.valid('json');
    const channel = commandChannel(body.channel);
    if (channel.agentRef !== null) throw new AegisError('BAD_USER_INPUT', 'channel: a broadcast names no agent');
    const draft = messageDraft(channel.kind, body, c.req.valid('header')['Idempotency-Key']);
    const { id } = await messages.broadcast(c.var.consumer, draft, {});
    await untilAllWritten(services, c.var.consumer, id, deadlineAt);
    const namesByOutcome: Record<Outcome, string[]> = { sent: [], failed: [], queued: [] };
    for (const { status, agentName } of await messages.outcomesOfBroadcast(c.var.consumer, id))
      namesByOutcome[outcomeOf(status)].push(agentName);
    const { sent, failed, queued } = namesByOutcome;
    return c.json({ message_id: id, sent_to: sent, failed, queued }, 200);
  });
}

/**
 * Waits until no message of a broadcast is queued any more but those to agents that are not connected, until `deadlineAt`
 * (milliseconds since 1970) at most.
 */
async function untilAllWritten(
  { messages, clock }: Services,
  scope: Scope,
  broadcastId: string,
  deadlineAt: number,
): Promise<void> {
  let unreachable: number | null = null;
  for (;;) {
    const queued = (await messages.progress(scope, [broadcastId])).get(broadcastId)?.queued ?? 0;
    if (queued === 0 || clock.now() >= deadlineAt) return;
    unreachable ??= await messages.countUnreachable(scope, broadcastId);
    const leftMs = deadlineAt - clock.now();
    if (queued <= unreachable || leftMs <= 0) return;
    await new Promise<void>((resolve) => clock.after(Math.min(pollIntervalMs, leftMs), resolve));
  }
}
