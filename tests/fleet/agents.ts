import { createHash, randomBytes, randomUUID } from 'node:crypto';
import type { Database } from '../../src/db/database.ts';

/** An agent's row as enrolment leaves it; everything may be given. */
export interface GivenAgent {
  readonly uid?: string;
  readonly name?: string;
  readonly orgId?: string;
  readonly enrollment?: 'pending' | 'approved' | 'revoked';
  readonly dialect?: 'handoff' | 'enveloped' | null;
  readonly epoch?: number;
  readonly hostname?: string;
  readonly hostId?: string;
  readonly network?: unknown;
  readonly labels?: readonly string[];
  readonly pendingKey?: string;
  readonly pendingKeyProtocol?: 'v1' | 'v2';
  /** The instance that holds its link; the agent has a connection then. */
  readonly connectedTo?: string;
  readonly protocol?: 'v1' | 'v2';
}

const eventKinds = 'policies anomalies threats processes dependencies tests rollbacks heartbeat status logs'.split(' ');
const commandKinds = 'policies investigations threats processes tests rollbacks'.split(' ');

export function fingerprintOf(publicKey: string): string {
  return createHash('sha256').update(publicKey, 'base64').digest('hex');
}

export function newKey(): string {
  return randomBytes(32).toString('base64');
}

/** Puts an agent into the database as if it had authenticated, with its sixteen channels. */
export async function insertAgent(
  database: Database,
  given: GivenAgent = {},
): Promise<{ uid: string; name: string; publicKey: string }> {
  const { sql } = database;
  const uid = given.uid ?? randomUUID();
  const name = given.name ?? `agent-${uid.slice(0, 8)}`;
  const publicKey = newKey();
  const json = (value: unknown) => (value === undefined ? null : JSON.stringify(value));
  await sql`
    insert into agents (uid, org_id, name, enrollment, public_key, key_fingerprint, dialect, epoch, hostname, host_id, network, labels)
    values (${uid}, ${given.orgId ?? 'default-org'}, ${name}, ${given.enrollment ?? 'approved'}, ${publicKey},
      ${fingerprintOf(publicKey)}, ${given.dialect === undefined ? 'enveloped' : given.dialect}, ${given.epoch ?? 1}, ${given.hostname ?? null},
      ${given.hostId ?? null}, ${json(given.network)}::text::jsonb, ${[...(given.labels ?? [])]}::text[])`;
  await sql`
    insert into communication_channels (agent_id, channel_name, channel_type)
    select ${uid}, 'agent.' || ${uid}::text || '.' || kind, 'agent_to_backend' from unnest(${eventKinds}::text[]) as kind
    union all
    select ${uid}, 'backend.' || ${uid}::text || '.' || kind, 'backend_to_agent' from unnest(${commandKinds}::text[]) as kind`;
  if (given.pendingKey !== undefined)
    await sql`
      insert into agent_pending_keys (agent_uid, protocol, public_key, key_fingerprint)
      values (${uid}, ${given.pendingKeyProtocol ?? 'v1'}, ${given.pendingKey}, ${fingerprintOf(given.pendingKey)})`;
  if (given.connectedTo !== undefined)
    await sql`
      insert into agent_connections (agent_id, public_key, session_token, epoch, instance_id, protocol, session_expires_at)
      values (${uid}, ${publicKey}, 'a hash', ${given.epoch ?? 1}, ${given.connectedTo}, ${given.protocol ?? 'v1'},
        now() + interval '1 day')`;
  return { uid, name, publicKey };
}

/** A running instance, or one whose lease ran out. */
export async function insertInstance(database: Database, id: string, leaseMs: number): Promise<void> {
  await database.sql`
    insert into instances (id, version, lease_until) values (${id}, '0.0.0', now() + ${leaseMs} * interval '1 millisecond')
    on conflict (id) do update set lease_until = excluded.lease_until`;
}

/** Puts many agents into the database in one statement, without channels; gives their uids in order. */
export async function insertAgents(database: Pick<Database, 'sql'>, count: number, orgId: string): Promise<string[]> {
  const rows = await database.sql<{ uid: string }[]>`
    with made as (
      insert into agents (org_id, name, enrollment, public_key, key_fingerprint, dialect, epoch)
      select ${orgId}, 'agent-' || number, 'approved', number, number, 'enveloped', 1 from generate_series(1, ${count}) number
      returning uid)
    select uid from made order by uid`;
  return rows.map(({ uid }) => uid);
}
