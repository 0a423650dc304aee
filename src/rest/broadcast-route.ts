import { createRoute, z } from '@hono/zod-openapi';
import type { Scope } from '../access/scope.ts';
import { AegisError } from '../errors.ts';
import type { Message, MessageStatus } from '../messages/message.ts';
import type { Messages } from '../messages/messages.ts';
import { maxPageSize } from '../paging.ts';
import { bearerSecurity } from './credentials.ts';
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
  security: bearerSecurity,
  middleware: readJsonBody,
  request: { headers: idempotencyHeader, body: jsonBody(draftSchema('event').openapi('BroadcastRequest')) },
  responses: {
    200: { description: 'Who got it', content: { 'application/json': { schema: broadcastSchema } } },
    ...problemResponses(
      'BAD_USER_INPUT',
      'CHANNEL_UNKNOWN',
      'UNAUTHENTICATED',
      'PAYLOAD_TOO_LARGE',
      'IDEMPOTENCY_CONFLICT',
      'INTERNAL_SERVER_ERROR',
    ),
  },
});

type Services = Pick<RestServices, 'fleet' | 'messages' | 'clock'>;

/** `POST /api/v1/agents/broadcast` */
export function addBroadcastRoute(app: RestApp, services: Services): void {
  const { messages, clock } = services;
  app.openapi(broadcastRoute, async (c) => {
    const deadlineAt = clock.now() + writtenWithinMs;
    const body = c.req.valid('json');
    const channel = commandChannel(body.channel);
    if (channel.agentRef !== null) throw new AegisError('BAD_USER_INPUT', 'channel: a broadcast names no agent');
    const draft = messageDraft(channel.kind, body, c.req.valid('header')['Idempotency-Key']);
    const { id } = await messages.broadcast(c.var.scope, draft, {});
    await untilAllWritten(services, c.var.scope, id, deadlineAt);
    const namesByOutcome: Record<Outcome, string[]> = { sent: [], failed: [], queued: [] };
    for await (const page of pagesOf(messages, id))
      for (const { status, agentName } of page) namesByOutcome[outcomeOf(status)].push(agentName);
    const { sent, failed, queued } = namesByOutcome;
    return c.json({ message_id: id, sent_to: sent, failed, queued }, 200);
  });
}

/**
 * Waits until no message of a broadcast is queued any more but those to agents that are not connected, until `deadlineAt`
 * (milliseconds since 1970) at most.
 */
async function untilAllWritten(
  { fleet, messages, clock }: Services,
  scope: Scope,
  broadcastId: string,
  deadlineAt: number,
): Promise<void> {
  let offline: number | null = null;
  for (;;) {
    const queued = (await messages.progress([broadcastId])).get(broadcastId)?.queued ?? 0;
    if (queued === 0 || clock.now() >= deadlineAt) return;
    offline ??= await countOffline({ fleet, messages }, scope, broadcastId);
    const leftMs = deadlineAt - clock.now();
    if (queued <= offline || leftMs <= 0) return;
    await new Promise<void>((resolve) => clock.after(Math.min(pollIntervalMs, leftMs), resolve));
  }
}

/** How many queued messages of a broadcast are to agents that are not connected. */
async function countOffline(
  { fleet, messages }: Pick<Services, 'fleet' | 'messages'>,
  scope: Scope,
  broadcastId: string,
): Promise<number> {
  let offline = 0;
  for await (const page of pagesOf(messages, broadcastId, ['pending'])) {
    const agents = await fleet.findAll(
      scope,
      page.map(({ agentUid }) => agentUid),
    );
    offline += agents.filter(({ session }) => session === null).length;
  }
  return offline;
}

async function* pagesOf(
  messages: Messages,
  broadcastId: string,
  statuses?: readonly MessageStatus[],
): AsyncGenerator<readonly Message[]> {
  let after: string | null = null;
  for (;;) {
    const page = await messages.pageOfBroadcast(broadcastId, statuses, { first: maxPageSize, after });
    yield page.items;
    const last = page.items.at(-1);
    if (last === undefined || !page.hasNextPage) return;
    after = messages.cursorOf(last);
  }
}
