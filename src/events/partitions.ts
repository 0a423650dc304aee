import type { TransactionSql } from 'postgres';
import type { Database } from '../db/database.ts';

/**
 * The SQL of partitions. Events are partitioned by kind and below that by hour, ids of recent events by hour: each of these
 * eleven tables is a family here. A partition's name says what it holds, `<family>_<from>_<until>`, the last hour exclusive.
 */

export interface Partition {
  readonly family: string;
  readonly from: number;
  readonly until: number;
}

export interface PartitionFamily {
  readonly name: string;
  /** Null: ids of recent events. */
  readonly kind: string | null;
  /** In the order of their hours. */
  readonly partitions: readonly Partition[];
}

export interface Partitions {
  /** What there is, with the hour that events are stored in, and the time: the earlier one of the given and the database's. */
  look(givenMs: number): Promise<{
    readonly hour: number;
    readonly nowMs: number;
    readonly families: readonly PartitionFamily[];
  }>;
  /** Makes a partition where it is not there yet; no reader and no writer waits for it. */
  make(partition: Partition): Promise<void>;
  /** From now on events are stored in this hour, for which every family must have a partition. */
  turnTo(hour: number, nowMs: number): Promise<void>;
  /** Drops a partition that is still there, and remembers which event was the last in it. */
  drop(partition: Partition, kind: string | null): Promise<void>;
}

const idsFamily = 'recent_event_ids';
/** Any number will do, as long as every gateway uses the same. */
const partitionLock = 4_152_870_332;
/** Whoever wants the table meanwhile waits behind a lock that waits: so long at the most. */
const lockTimeoutMs = 100;

export function createPartitions({ sql }: Pick<Database, 'sql'>): Partitions {
  /** One gateway at a time, and none that waits long for locks that readers and writers want. */
  async function alone(work: (tx: TransactionSql) => Promise<void>): Promise<void> {
    await sql.begin(async (tx) => {
      await tx`select pg_advisory_xact_lock(${partitionLock})`;
      await tx`select set_config('lock_timeout', ${String(lockTimeoutMs)}, true)`;
      await work(tx);
    });
  }

  return {
    async look(givenMs) {
      const [stream] = await sql<{ hour: number; now: Date }[]>`
        select hour, least(now(), ${new Date(givenMs).toISOString()}::timestamptz) as now from event_stream where id = 1`;
      if (!stream) throw new Error('event_stream has lost its row');
      const rows = await sql<{ family: string; partition: string | null }[]>`
        with families as (
          select ${idsFamily}::regclass::oid as oid union all select inhrelid from pg_inherits where inhparent = 'events'::regclass
        )
        select family.relname as family, leaf.relname as partition
        from families join pg_class family using (oid)
          left join pg_inherits on inhparent = family.oid left join pg_class leaf on leaf.oid = inhrelid`;
      const names = [...new Set(rows.map(({ family }) => family))];
      const families = names.map((name) => ({
        name,
        kind: name === idsFamily ? null : name.replace(/^events_/, ''),
        partitions: rows
          .filter(({ family }) => family === name)
          .flatMap(({ partition }) => partitionNamed(name, partition))
          .sort((one, other) => one.from - other.from),
      }));
      return { hour: stream.hour, nowMs: new Date(stream.now).getTime(), families };
    },

    make: (partition) =>
      alone(async (tx) => {
        const { family, from, until } = partition;
        if (await exists(tx, partition)) return;
        // Made beside and attached: unlike `create table … partition of` that locks nobody out.
        await tx`create table ${sql(nameOf(partition))} (like ${sql(family)})`;
        await tx`alter table ${sql(family)} attach partition ${sql(nameOf(partition))}
          for values from (${sql.unsafe(String(from))}) to (${sql.unsafe(String(until))})`;
      }),

    turnTo: (hour, nowMs) =>
      alone(async (tx) => {
        // Waits for the statements under way that store events, and keeps others from starting: no two can hold each
        // other's ids for new while one writes them into this hour and one into the last.
        await tx`lock table only ${sql(idsFamily)} in share row exclusive mode`;
        await tx`
          with turned as (update event_stream set hour = ${hour} where id = 1 and hour < ${hour} returning position)
          insert into event_hours (hour, first_position, began_at)
          select ${hour}, position + 1, ${new Date(nowMs).toISOString()}::timestamptz from turned`;
      }),

    drop: (partition, kind) =>
      alone(async (tx) => {
        if (!(await exists(tx, partition))) return;
        if (kind !== null)
          await tx`
            insert into dropped_events (kind, through_position)
            select ${kind}, max(position) from ${sql(nameOf(partition))} having max(position) is not null
            on conflict (kind) do update
            set through_position = greatest(dropped_events.through_position, excluded.through_position)`;
        await tx`drop table ${sql(nameOf(partition))}`;
      }),
  };
}

function nameOf({ family, from, until }: Partition): string {
  return `${family}_${from}_${until}`;
}

function partitionNamed(family: string, name: string | null): Partition[] {
  const [, from, until] = /_(\d+)_(\d+)$/.exec(name ?? '') ?? [];
  return from === undefined || until === undefined ? [] : [{ family, from: Number(from), until: Number(until) }];
}

/** Asks the catalogue's table: `to_regclass` may not have heard yet of what another gateway did a moment ago. */
async function exists(tx: TransactionSql, partition: Partition): Promise<boolean> {
  const rows = await tx`select 1 from pg_class where relname = ${nameOf(partition)} and pg_table_is_visible(oid)`;
  return rows.length > 0;
}
