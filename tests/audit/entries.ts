import { z } from 'zod';

const entrySchema = z.object({
  orgId: z.string().nullable(),
  at: z.string(),
  action: z.string(),
  actor: z.object({
    ...{ kind: z.string(), id: z.string(), label: z.string() },
    ...{ address: z.string().nullable(), requestId: z.string().nullable() },
  }),
  subject: z.object({ type: z.string(), id: z.string(), name: z.string().nullable() }),
  outcome: z.string(),
  details: z.record(z.string(), z.unknown()),
  number: z.number().nullable(),
  hash: z.string().nullable(),
});
export type SeenEntry = z.infer<typeof entrySchema>;

const query = `query ($filter: AuditFilter, $first: Int) { auditEntries(filter: $filter, first: $first) { nodes {
  orgId at action actor { kind id label address requestId } subject { type id name } outcome details number hash
} } }`;

type Ask = (query: string, variables: Record<string, unknown>) => Promise<Record<string, unknown> | null | undefined>;

/** Entries of the audit log, the newest first. */
export async function auditEntries(ask: Ask, filter: Record<string, unknown> = {}): Promise<SeenEntry[]> {
  const data = await ask(query, { filter, first: 500 });
  return z.object({ auditEntries: z.object({ nodes: z.array(entrySchema) }) }).parse(data).auditEntries.nodes;
}
