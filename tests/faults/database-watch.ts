import { setTimeout as pause } from 'node:timers/promises';
import postgres from 'postgres';
import { z } from 'zod';
import { eventKinds } from '../../src/agent-gateway/wire/channels.ts';
import { messagePriorities, messageStatuses } from '../../src/messages/message.ts';
import { encodeCursor } from '../../src/paging.ts';
import { type OwnerSeen, preciseNowMs, type Stored } from './history.ts';

/** Looks into a gateway's database from beside it. */
export interface DatabaseWatch {
  /** Every owner of an agent that it saw when it looked, again and again. */
  readonly owners: readonly OwnerSeen[];
  /** Everything that is stored, in one snapshot. Waits for a database that is away, 30 s at most. */
  read(): Promise<Stored>;
  stop(): Promise<void>;
}

const betweenLooksMs = 200;
const patienceMs = 30_000;

const messageRow = z.object({
  id: z.string(),
  agent: z.string(),
  status: z.enum(messageStatuses),
  priority: z.number().transform((rank) => messagePriorities[rank] ?? 'low'),
  attempts: z.number(),
  maxRetries: z.number(),
  expiresAtMs: z.coerce.number(),
  key: z.string().nullable(),
  broadcastId: z.string().nullable(),
  failure: z.string().nullable(),
});

const eventRow = z
  .object({
    position: z.coerce.number(),
    agent: z.string(),
    messageId: z.string(),
    kind: z.enum(eventKinds),
    number: z.coerce.number().nullable(),
  })
  .transform((event) => ({ ...event, cursor: encodeCursor('event', event.position) }));

const ownerRow = z.object({ agent: z.string(), epoch: z.coerce.number(), instance: z.string(), session: z.string() });

export function watchDatabase(databaseUrl: string): DatabaseWatch {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => {}, connect_timeout: 5 });
  const owners: OwnerSeen[] = [];
  const latest = new Map<string, OwnerSeen>();
  let isStopped = false;

  async function look(): Promise<void> {
    const rows = await sql`
      select name as agent, connection.epoch, instance_id as instance, session_token as session
      from agent_connections connection join agents on agents.uid::text = connection.agent_id`;
    for (const row of rows) {
      const owner = ownerRow.parse(row);
      const before = latest.get(owner.agent);
      if (before?.epoch === owner.epoch && before.session === owner.session) continue;
      latest.set(owner.agent, owner);
      owners.push(owner);
    }
  }

  async function watch(): Promise<void> {
    while (!isStopped) {
      // The database is away, or nothing has been migrated yet.
      await look().catch(() => {});
      await pause(betweenLooksMs);
    }
  }

  function snapshot(): Promise<Stored> {
    const readAtMs = preciseNowMs();
    return sql.begin('isolation level repeatable read read only', async (tx) => {
      const messages = await tx`
        select id, agent_name as agent, status, priority, attempts, max_retries as "maxRetries",
          extract(epoch from expires_at) * 1000 as "expiresAtMs", idempotency_key as key, broadcast_id as "broadcastId", failure
        from message_queue`;
      const events = await tx`
        select position, agent_name as agent, message_id as "messageId", kind, payload ->> 'number' as number
        from events order by position`;
      const [stream] = await tx<{ position: string }[]>`select position from event_stream`;
      return {
        readAtMs,
        messages: z.array(messageRow).parse(messages),
        events: z.array(eventRow).parse(events),
        head: Number(stream?.position),
      };
    });
  }

  async function read(): Promise<Stored> {
    const deadlineMs = preciseNowMs() + patienceMs;
    for (;;) {
      try {
        return await snapshot();
      } catch (error) {
        if (preciseNowMs() > deadlineMs || error instanceof z.ZodError) throw error;
        await pause(betweenLooksMs);
      }
    }
  }

  const watching = watch();
  return {
    owners,
    read,
    async stop() {
      isStopped = true;
      await watching;
      await sql.end({ timeout: 2 });
    },
  };
}
