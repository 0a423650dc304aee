import type { TransactionSql } from 'postgres';
import { z } from 'zod';

/** What an agent says of itself, kept as it came. */
export interface AgentDescription {
  readonly hostId: string;
  readonly machineIdHash?: string | null | undefined;
  readonly agentVersion?: string | null | undefined;
  readonly capabilities?: unknown;
  readonly platform?: unknown;
  readonly network?: unknown;
}

const withHostname = z.object({ hostname: z.string().min(1).max(255) });

export async function describeAgent(tx: TransactionSql, uid: string, description: AgentDescription): Promise<void> {
  const { hostId, machineIdHash, agentVersion, capabilities, platform, network } = description;
  const hostname = withHostname.safeParse(platform).data?.hostname ?? null;
  await tx`
    update agents set host_id = ${hostId}, hostname = ${hostname}, version = ${agentVersion ?? null},
      machine_id_hash = ${machineIdHash ?? null}, platform = ${jsonText(platform)}::text::jsonb,
      network = ${jsonText(network)}::text::jsonb, capabilities = ${jsonText(capabilities)}::text::jsonb,
      registered_at = coalesce(registered_at, now()), updated_at = now()
    where uid = ${uid}`;
}

function jsonText(value: unknown): string | null {
  return value === undefined || value === null ? null : JSON.stringify(value);
}
