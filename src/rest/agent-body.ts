import { z } from '@hono/zod-openapi';
import type { Agent } from '../fleet/agent.ts';
import { anyJson, time } from './fields.ts';

/** An agent as the list shows it. What is not known is absent. */
export const listedAgentSchema = z
  .object({
    agent_uid: z.uuid(),
    org_id: z.string(),
    host_id: z.string(),
    hostname: z.string().optional(),
    machine_id_hash: z.string().optional(),
    agent_version: z.string().optional(),
    platform: anyJson.optional(),
    network: anyJson.optional(),
    labels: z.array(z.string()),
    note: z.string().optional(),
    created: time,
    last_seen: time,
  })
  .openapi('ListedAgent');

/** An agent by itself. */
export const agentSchema = listedAgentSchema.extend({ capabilities: anyJson.optional() }).openapi('Agent');

/** Maps an agent to what the list shows of it. */
export function listedAgent(agent: Agent): z.infer<typeof listedAgentSchema> {
  return {
    agent_uid: agent.uid,
    org_id: agent.orgId,
    host_id: agent.hostId ?? agent.name,
    hostname: agent.hostname ?? undefined,
    machine_id_hash: agent.machineIdHash ?? undefined,
    agent_version: agent.version ?? undefined,
    platform: agent.platform ?? undefined,
    network: agent.network ?? undefined,
    labels: [...agent.labels],
    note: agent.note ?? undefined,
    created: agent.createdAt.toISOString(),
    last_seen: (agent.lastSeenAt ?? agent.createdAt).toISOString(),
  };
}

/** Maps an agent to what is shown of it alone. */
export function singleAgent(agent: Agent): z.infer<typeof agentSchema> {
  return { ...listedAgent(agent), capabilities: agent.capabilities ?? undefined };
}
