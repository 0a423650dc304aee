import { createRoute, z } from '@hono/zod-openapi';
import { AegisError } from '../errors.ts';
import { needing } from './credentials.ts';
import type { RestApp } from './environment.ts';
import { problemResponses } from './error-responses.ts';
import { agentRef, time } from './fields.ts';
import type { RestServices } from './services.ts';

const statusSchema = z
  .object({
    agent_id: z.string(),
    connected: z.boolean(),
    last_seen: time.nullable(),
    channels: z.array(z.string()).openapi({ description: 'Long names of the active channels.' }),
    session_expires: time.nullable().openapi({ description: 'Null while disconnected.' }),
  })
  .openapi('AgentStatus');

const statusRoute = createRoute({
  method: 'get',
  path: '/api/v1/agents/{id}/status',
  operationId: 'getAgentStatus',
  summary: 'Whether an agent is connected',
  tags: ['agents'],
  ...needing('agents:read'),
  request: { params: z.object({ id: agentRef }) },
  responses: {
    200: { description: 'The status', content: { 'application/json': { schema: statusSchema } } },
    ...problemResponses(
      'UNAUTHENTICATED',
      'FORBIDDEN',
      'RATE_LIMITED',
      'AGENT_NOT_FOUND',
      'AGENT_NAME_AMBIGUOUS',
      'INTERNAL_SERVER_ERROR',
    ),
  },
});

/** `GET /api/v1/agents/{id}/status` */
export function addAgentStatusRoute(app: RestApp, { fleet }: Pick<RestServices, 'fleet'>): void {
  app.openapi(statusRoute, async (c) => {
    const agent = await fleet.find(c.var.consumer, c.req.valid('param').id);
    if (agent === null) throw new AegisError('AGENT_NOT_FOUND');
    const channels = await fleet.activeChannels(c.var.consumer, [agent.uid]);
    return c.json(
      {
        agent_id: agent.name,
        connected: agent.session !== null,
        last_seen: agent.lastSeenAt?.toISOString() ?? null,
        channels: [...(channels.get(agent.uid) ?? [])],
        session_expires: agent.session?.expiresAt.toISOString() ?? null,
      },
      200,
    );
  });
}
