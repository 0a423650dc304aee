import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { openDatabase } from '../../src/db/database.ts';
import { checkJournal, migrate } from '../../src/db/migrate.ts';
import { onServer } from '../support/databases.ts';
import { type EngineDatabase, engines, openEngine } from './engines.ts';

/** The tables that were asked for (requirements.md, "Tables"): column, type, whether it may be null, default. */
const uuid = 'uuid not null default gen_random_uuid()';
const now = 'timestamp with time zone not null default now()';
const wanted: Readonly<
  Record<string, { readonly columns: Record<string, string>; readonly indexes: Record<string, string> }>
> = {
  agent_connections: {
    columns: {
      id: uuid,
      agent_id: 'character varying(255) not null',
      public_key: 'text not null',
      session_token: 'character varying(255) not null',
      connected_at: now,
      last_seen: now,
      is_active: 'boolean not null default true',
      metadata: 'jsonb',
      created_at: now,
      updated_at: now,
    },
    indexes: { idx_agent_connections_agent_id: '(agent_id)', idx_agent_connections_active: '(is_active)' },
  },
  message_queue: {
    columns: {
      id: uuid,
      agent_id: 'character varying(255) not null',
      channel: 'character varying(255) not null',
      message_type: 'character varying(50) not null',
      payload: 'text not null',
      encrypted_payload: 'text not null',
      nonce: 'text not null',
      signature: 'text not null',
      status: "character varying(50) not null default 'pending'::character varying",
      retry_count: 'integer not null default 0',
      max_retries: 'integer not null default 3',
      created_at: now,
      processed_at: 'timestamp with time zone',
      expires_at: "timestamp with time zone not null default (now() + '01:00:00'::interval)",
    },
    indexes: {
      idx_message_queue_agent_id: '(agent_id)',
      idx_message_queue_status: '(status)',
      idx_message_queue_created_at: '(created_at)',
    },
  },
  communication_channels: {
    columns: {
      id: uuid,
      agent_id: 'character varying(255) not null',
      channel_name: 'character varying(255) not null',
      channel_type: 'character varying(50) not null',
      is_active: 'boolean not null default true',
      created_at: now,
      updated_at: now,
    },
    indexes: { idx_communication_channels_agent_id: '(agent_id)', idx_communication_channels_type: '(channel_type)' },
  },
};

const uniques: Readonly<Record<string, readonly string[]>> = {
  agent_connections: ['agent_id'],
  communication_channels: ['agent_id, channel_name'],
};

describe.each(engines)('the schema on %s', (engine) => {
  let open: EngineDatabase;
  beforeAll(async () => {
    open = await openEngine(engine);
  });
  afterAll(() => open.close());

  it.each(Object.entries(wanted))('has the table %s as it was asked for', async (table, { columns, indexes }) => {
    const { sql } = open.database;
    const found = await sql<{ name: string; definition: string }[]>`
      select attname as name, format_type(atttypid, atttypmod) || case when attnotnull then ' not null' else '' end ||
        coalesce(' default ' || pg_get_expr(adbin, adrelid), '') as definition
      from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
      where attrelid = ${table}::regclass and attnum > 0 and not attisdropped`;
    expect(Object.fromEntries(found.map(({ name, definition }) => [name, definition]))).toMatchObject(columns);

    const definitions = await sql<{ indexname: string; indexdef: string }[]>`
      select indexname, indexdef from pg_indexes where tablename = ${table}`;
    for (const [name, on] of Object.entries(indexes))
      expect(definitions.find(({ indexname }) => indexname === name)?.indexdef).toBe(
        `CREATE INDEX ${name} ON public.${table} USING btree ${on}`,
      );

    const constraints = await sql<{ definition: string }[]>`
      select pg_get_constraintdef(oid) as definition from pg_constraint where conrelid = ${table}::regclass`;
    const texts = constraints.map(({ definition }) => definition);
    expect(texts).toContain('PRIMARY KEY (id)');
    for (const key of uniques[table] ?? []) expect(texts).toContain(`UNIQUE (${key})`);
  });

  it('works with the columns that were asked for alone, where the others have defaults or are given by the gateway', async () => {
    const { sql } = open.database;
    const [channel] = await sql`
      insert into communication_channels (agent_id, channel_name, channel_type) values ('a', 'c', 'agent_to_backend') returning *`;
    expect(channel).toMatchObject({ is_active: true });
    await expect(
      sql`insert into communication_channels (agent_id, channel_name, channel_type) values ('a', 'c', 'x')`.execute(),
    ).rejects.toMatchObject({ code: '23505' });
  });

  it('is not changed by migrating again', async () => {
    const count = async () => (await open.database.sql`select 1 from drizzle.__drizzle_migrations`).length;
    const before = await count();
    await migrate(open.database);
    await Promise.all([migrate(open.database), engine === 'embedded' ? undefined : migrate(open.database)]);
    expect(await count()).toBe(before);
    expect(await open.database.sql`select position from event_stream`).toHaveLength(1);
  });
});

describe.runIf(engines.includes('postgres'))('migrations on an empty database', () => {
  it('run once although several gateways start at once', async () => {
    const serverUrl = inject('postgresUrl') ?? '';
    const name = `aegis_test_${randomBytes(6).toString('hex')}`;
    await onServer(serverUrl, (sql) => sql`create database ${sql(name)}`);
    const url = new URL(serverUrl);
    url.pathname = `/${name}`;
    const gateways = await Promise.all(
      Array.from({ length: 5 }, () => openDatabase({ databaseUrl: url.href, dataDir: 'memory' })),
    );
    try {
      await Promise.all(gateways.map(migrate));
      for (const { sql } of gateways.slice(0, 1)) {
        const rows = await sql`select hash from drizzle.__drizzle_migrations`;
        expect(new Set(rows.map(({ hash }) => hash)).size).toBe(rows.length);
        expect(rows.length).toBeGreaterThan(0);
        const locks = await sql`
          select 1 from pg_locks join pg_database on oid = database
          where locktype = 'advisory' and datname = current_database()`;
        expect(locks).toHaveLength(0);
      }
    } finally {
      for (const gateway of gateways) await gateway.close();
      await onServer(serverUrl, (sql) => sql`drop database ${sql(name)} with (force)`);
    }
  });
});

describe("the migrations' journal", () => {
  const journal = (...times: number[]) =>
    JSON.stringify({ entries: times.map((when, index) => ({ idx: index, when, tag: `000${index}_step` })) });

  it('may only grow in time', () => {
    expect(() => checkJournal(journal())).not.toThrow();
    expect(() => checkJournal(journal(1, 2, 30))).not.toThrow();
    expect(() => checkJournal(journal(1, 3, 2))).toThrow('0002_step');
    expect(() => checkJournal(journal(1, 3, 3))).toThrow('0002_step');
    expect(() => checkJournal('{}')).toThrow();
  });
});
