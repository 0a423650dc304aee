import type { Sql } from 'postgres';

/** The role in which consumers of one organisation are served: it owns nothing, so row-level security holds it. */
export const consumerRole = 'aegis_consumer';

type Privilege = 'select' | 'insert' | 'update' | 'delete';

/** What consumers' statements need, and no more. */
const granted: Readonly<Record<string, readonly Privilege[]>> = {
  agents: ['select', 'update'],
  agent_connections: ['select'],
  agent_keys: ['select', 'insert'],
  agent_pending_keys: ['select', 'delete'],
  api_keys: ['select', 'insert', 'update'],
  audit_entries: ['select'],
  audit_pending: ['select', 'insert'],
  bootstrap_tokens: ['select', 'delete'],
  broadcast_counts: ['select', 'insert'],
  broadcasts: ['select', 'insert', 'update'],
  communication_channels: ['select', 'update'],
  enrollment_tokens: ['select', 'insert', 'update', 'delete'],
  events: ['select'],
  instances: ['select'],
  message_queue: ['select', 'insert', 'update'],
};
const sequences = [
  'api_keys_sequence_seq',
  'audit_entries_id_seq',
  'enrollment_tokens_sequence_seq',
  'message_queue_sequence_seq',
];

/**
 * Makes the role where it may, and gives it what it lacks. Where roles may not be made, an administrator of the database has to
 * (docs/ACCESS.md); what is missing then is told by whoever uses it.
 */
export async function prepareConsumerRole(sql: Sql): Promise<void> {
  // Roles belong to the whole server: gateways of another database may be doing the same.
  await sql.unsafe(`
    do $$ begin
      if not exists (select from pg_roles where rolname = '${consumerRole}') then create role ${consumerRole} nologin; end if;
    exception when duplicate_object or unique_violation or insufficient_privilege then null;
    end $$`);
  const [role] = await sql`select from pg_roles where rolname = ${consumerRole}`;
  if (!role) return;
  await sql.unsafe(`
    do $$ begin
      if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant ${consumerRole} to %I', current_user);
      end if;
    exception when insufficient_privilege then null;
    end $$`);
  const wanted = Object.entries(granted).flatMap(([table, privileges]) =>
    privileges.map((privilege) => ({ table, privilege })),
  );
  const missing = await sql<{ table: string; privilege: string }[]>`
    select "table", privilege
    from unnest(${wanted.map(({ table }) => table)}::text[], ${wanted.map(({ privilege }) => privilege)}::text[])
      as wanted ("table", privilege)
    where not has_table_privilege(${consumerRole}, "table", privilege)`;
  for (const { table, privilege } of missing) await sql.unsafe(`grant ${privilege} on ${table} to ${consumerRole}`);
  await sql.unsafe(`grant usage on sequence ${sequences.join(', ')} to ${consumerRole}`);
}
