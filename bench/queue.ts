import { randomBytes, randomUUID } from 'node:crypto';
import postgres from 'postgres';
import { commandLine } from '../src/access/consumer.ts';
import { openDatabase } from '../src/db/database.ts';
import { migrate } from '../src/db/migrate.ts';
import { createAcceptanceQueries } from '../src/messages/acceptance-queries.ts';
import { createBroadcastQueries } from '../src/messages/broadcast-queries.ts';
import { createBroadcastTransitions } from '../src/messages/broadcast-transitions.ts';
import { createMessageQueries, type NewMessage } from '../src/messages/queries.ts';
import { createRetention } from '../src/messages/retention.ts';
import { createTransitions, type Settlement } from '../src/messages/transitions.ts';
import { findDatabases } from './database.ts';
import { machineFacts } from './report.ts';

// What the statements of the queue cost on a table of very many messages (docs/DELIVERY.md, "Ten million messages"):
// fills a database of its own, runs the gateway's own statements, and prints their plans as Postgres executed them.
// Wants a superuser on a real Postgres, for auto_explain, and a kilobyte of disk for each message.
//
//   npx tsx bench/queue.ts [MESSAGES]

const messages = Number(process.argv[2] ?? 10_000_000);
const agents = 20_000;
/** Messages that wait for agents that are not connected. */
const openMessages = 50_000;
const broadcastTargets = 100_000;
const links = 10_000;
/** From its sixth execution on, Postgres may plan a prepared statement without its parameters. */
const executions = 7;
const retentionMs = 7 * 86_400_000;

const draft: NewMessage = {
  ...{
    kind: 'policies',
    type: 'request',
    priorityRank: 1,
    payloadText: '{"rule":1}',
    maxRetries: 3,
    ttlMs: 3_600_000,
  },
  ...{ idempotencyKey: null, requestHash: 'hash' },
};

interface Execution {
  readonly durationMs: number;
  readonly plan: string;
}

async function main(): Promise<void> {
  const databases = await findDatabases({ embedded: false });
  const { url, drop } = await databases.create();
  if (url === null) throw new Error('a real Postgres is needed');
  try {
    const database = await openDatabase({ databaseUrl: url, dataDir: 'memory' });
    await migrate(database);
    await database.close();
    const notices: string[] = [];
    const sql = postgres(url, { max: 1, onnotice: ({ message }) => notices.push(message ?? '') });
    console.log(`${machineFacts(databases.description)}.\n`);
    await fill(sql);
    await printSizes(sql);
    await measure(sql, notices);
    await measureBroadcast(sql);
    await sql.end();
  } finally {
    await drop();
  }
}

async function fill(sql: postgres.Sql): Promise<void> {
  await sql`
    insert into agents (org_id, name, enrollment, public_key, key_fingerprint, dialect, epoch)
    select 'default-org', 'agent-' || i, 'approved', i, i, 'enveloped', 1 from generate_series(1, ${agents}) i`;
  await sql`
    insert into communication_channels (agent_id, channel_name, channel_type)
    select uid::text, 'backend.' || uid || '.' || kind, 'backend_to_agent'
    from agents, unnest('{policies,investigations,threats,processes,tests,rollbacks}'::text[]) kind`;
  await sql`create temporary table numbered as select row_number() over () - 1 as number, uid, name from agents`;
  await sql`create index on numbered (number)`;
  const broadcasts = Math.floor(messages / 2 / broadcastTargets);
  await sql`
    insert into broadcasts (id, channel, state, finished_at)
    select ('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid, 'backend.policies', 'finished', now()
    from generate_series(0, ${broadcasts}) i`;
  // An index is built in a fraction of the time that it takes to grow.
  const indexes = await sql<{ indexdef: string; indexname: string }[]>`
    select indexdef, indexname from pg_indexes where tablename = 'message_queue' and indexname <> 'message_queue_pkey'`;
  for (const { indexname } of indexes) await sql`drop index ${sql(indexname)}`;
  await sql`
    insert into message_queue (agent_id, agent_name, org_id, channel, message_type, payload, encrypted_payload, nonce, signature,
      priority, broadcast_id, status, attempts, epoch, created_at, sent_at, delivered_at, processed_at, expires_at)
    select uid, name, 'default-org', 'backend.policies', 'request', '{"rule":"' || md5(i::text) || '","action":"block"}',
      case when is_open then '' else repeat(md5(i::text), 4) end, case when is_open then '' else '0123456789abcdef' end,
      case when is_open then '' else repeat('s', 88) end, 1,
      case when i <= ${messages / 2} then ('00000000-0000-0000-0000-' || lpad((i / ${broadcastTargets})::text, 12, '0'))::uuid end,
      case when is_open then 'pending' when i % 50 = 0 then 'failed' when i % 31 = 0 then 'expired' else 'delivered' end,
      case when is_open then 0 else 1 end, 1, at, at, at, case when not is_open then at end,
      case when is_open then now() + interval '1 hour' else at + interval '1 hour' end
    from generate_series(1, ${messages}) i,
      lateral (select i > ${messages - openMessages} as is_open, now() - interval '7 days 1 hour' + i * interval '7 days' / ${messages} as at) as fact,
      numbered where number = i % ${agents}`;
  for (const { indexdef } of indexes) await sql.unsafe(indexdef);
  await sql`
    insert into broadcast_counts (broadcast_id, status, count)
    select broadcast_id, status, count(*) from message_queue where broadcast_id is not null group by 1, 2`;
  for (const table of ['message_queue', 'agents', 'broadcasts', 'broadcast_counts', 'communication_channels'])
    await sql`vacuum analyze ${sql(table)}`;
}

async function printSizes(sql: postgres.Sql): Promise<void> {
  const rows = await sql<{ name: string; bytes: string }[]>`
    select 'the table' as name, pg_relation_size('message_queue') as bytes
    union all select indexrelname, pg_relation_size(indexrelid) from pg_stat_user_indexes where relname = 'message_queue'
    order by bytes desc`;
  console.log(`${messages} messages, ${openMessages} of them not final:\n\n| | MiB |\n| --- | --: |`);
  for (const { name, bytes } of rows) console.log(`| ${name} | ${(Number(bytes) / 1024 / 1024).toFixed(1)} |`);
  console.log();
}

const everything = { orgId: null };

/** As gateways have it for consumers of all organisations. */
function asOwner(sql: postgres.Sql) {
  return {
    sql,
    as: () => sql,
    lendAs: async <Result>(_scope: object, work: (client: postgres.Sql) => PromiseLike<Result>) => work(sql),
  };
}

async function measure(sql: postgres.Sql, notices: string[]): Promise<void> {
  const transitions = createTransitions(sql);
  const queries = createMessageQueries(asOwner(sql));
  const acceptances = createAcceptanceQueries(asOwner(sql), 'default-org', 10_000);
  const broadcastQueries = createBroadcastQueries(asOwner(sql));
  const broadcasts = createBroadcastTransitions(sql);
  const retention = createRetention(sql, retentionMs);
  const uids = (await sql<{ uid: string }[]>`select uid::text from agents order by name`).map(({ uid }) => uid);
  const claimants = (from: number) =>
    uids.slice(from, from + 200).map((agentUid) => ({ agentUid, epoch: 1, maxBatch: 10 }));
  const silent = Array.from({ length: links }, () => ({ agentUid: randomUUID(), epoch: 1 }));
  const [some] = await sql<
    { id: string }[]
  >`select broadcast_id as id from message_queue where broadcast_id is not null limit 1`;
  const broadcastId = some?.id ?? '';
  const range = { limit: 50, backwards: true, after: null, before: null };
  await sql`load 'auto_explain'`;
  for (const setting of ['log_min_duration = 0', 'log_analyze = on', 'log_buffers = on', 'log_timing = off'])
    await sql.unsafe(`set auto_explain.${setting}`);
  await sql`set client_min_messages = log`;

  const statements: [string, (index: number) => Promise<unknown>][] = [
    [
      'claim: 200 agents, for each of whom two or three messages wait',
      (index) => transitions.claim(claimants(index * 200), 4_194_304),
    ],
    [
      'confirm: 200 messages, none of which was there when the statistics were taken',
      async (index) => transitions.confirm(await claimedBy(sql, uids.slice(index * 200, index * 200 + 200))),
    ],
    [`unsettled: ${links} links, for whom nothing waits`, () => transitions.unsettled(silent)],
    ['expire: nothing to expire', () => transitions.expire(200)],
    [
      'accept: one message',
      (index) => acceptances.acceptAll(everything, [{ by: commandLine, agentRef: uids[index] ?? '', message: draft }]),
    ],
    ['cancelMessages: a broadcast that is not being cancelled', () => broadcasts.cancelMessages(broadcastId, 1_000)],
    ['release: no broadcast is paced', () => broadcasts.release()],
    ['finish: no broadcast is running', () => broadcasts.finish()],
    [`progress: one broadcast to ${broadcastTargets}`, () => broadcastQueries.progress(everything, [broadcastId])],
    [
      'page: the last 50 messages of a broadcast',
      () => broadcastQueries.page(everything, broadcastId, undefined, range),
    ],
    [
      'pageByAgent: the last 50 messages of each of 50 agents',
      () => queries.pageByAgent(everything, uids.slice(0, 50), undefined, range),
    ],
    ['countByAgent: 50 agents', () => queries.countByAgent(everything, uids.slice(0, 50), undefined)],
    [
      'countByAgent: what is queued for 50 agents',
      () => queries.countByAgent(everything, uids.slice(0, 50), ['pending']),
    ],
    ['retention: 1,000 messages', () => retention.clearAway()],
  ];
  for (const [name, run] of statements) {
    notices.length = 0;
    for (let index = 0; index < executions; index++) await run(index);
    const last = notices.flatMap((notice) => executionOf(notice) ?? []).at(-1);
    // Retention is two statements; the first is the one of interest.
    const shown = name.startsWith('retention') ? notices.flatMap((notice) => executionOf(notice) ?? []).at(-2) : last;
    console.log(`**${name}**: ${shown?.durationMs.toFixed(1)} ms\n\n\`\`\`\n${shown?.plan}\n\`\`\`\n`);
  }
}

/** As settled by the links of these agents, one message for each of up to 200. */
async function claimedBy(sql: postgres.Sql, uids: readonly string[]): Promise<Settlement[]> {
  const rows = await sql<{ id: string; revision: number }[]>`
    select id, revision from message_queue
    where agent_id = any(${[...uids]}) and processed_at is null and (status = 'sent') is true limit 200`;
  return rows.map(({ id, revision }) => ({ id, revision, epoch: 1, frame: null, retryDelayMs: 0, refusal: null }));
}

async function measureBroadcast(sql: postgres.Sql): Promise<void> {
  await sql`
    insert into agents (org_id, name, enrollment, public_key, key_fingerprint, dialect, epoch)
    select 'default-org', 'more-' || i, 'approved', i, i, 'enveloped', 1 from generate_series(1, ${broadcastTargets - agents}) i`;
  await sql`vacuum analyze agents`;
  const queries = createBroadcastQueries(asOwner(sql));
  const broadcasts = createBroadcastTransitions(sql);
  await sql`set auto_explain.log_min_duration = -1`;
  console.log(`| a broadcast to ${broadcastTargets} agents | ms |\n| --- | --: |`);
  const time = async <Result>(what: string, work: () => Promise<Result>): Promise<Result> => {
    const startedAt = performance.now();
    const result = await work();
    console.log(`| ${what} | ${(performance.now() - startedAt).toFixed(0)} |`);
    return result;
  };
  const limits = { maxOpen: 10_000, maxBytes: 1024 ** 3 };
  const ids: string[] = [];
  for (const bytes of [100, 1_000, 10_000]) {
    const message = { ...draft, payloadText: JSON.stringify(randomBytes(bytes / 2).toString('hex')) };
    const made = await time(`made, with ${bytes} bytes of payload`, () =>
      queries.insert(commandLine, { enrollment: 'approved' }, message, {}, limits),
    );
    if (made.outcome === 'accepted') ids.push(made.broadcast.id);
  }
  const [id = ''] = ids;
  await time('its progress, from the counts that are kept', () => queries.progress(everything, [id]));
  await time(
    'the same by counting messages',
    () => sql`
    select status, count(*) from message_queue where broadcast_id = ${id} group by status`,
  );
  await time('who got it, as REST asks', () => queries.outcomes(everything, id));
  await time('cancelled, a thousand messages at a time', async () => {
    await broadcasts.cancel(sql, commandLine, id);
    while ((await broadcasts.cancelMessages(id, 1_000)).length > 0);
  });
}

/** What auto_explain told of one execution, without the text and the estimates. */
function executionOf(notice: string): Execution | null {
  const duration = /^duration: ([\d.]+) ms {2}plan:/.exec(notice)?.[1];
  if (duration === undefined) return null;
  const lines = notice.split('\n');
  const first = lines.findIndex((line) => / {2}\(cost=/.test(line));
  const plan = lines
    .slice(first)
    .map((line) => line.replace(/ {2}\(cost=[^)]*\)/, '').replace(/'\{[^}]{60,}\}'/g, "'{…}'"))
    .filter((line) => !line.includes('Buffers: ') || line.startsWith('  Buffers: '));
  return { durationMs: Number(duration), plan: plan.join('\n') };
}

await main();
