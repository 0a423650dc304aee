import type { TransactionSql } from 'postgres';
import { type Clock, repeat } from '../clock.ts';
import type { Database } from '../db/database.ts';
import { gatewayActor } from './actor.ts';
import { auditing, entryColumns } from './auditing.ts';
import { type ChainPlace, canonicalText, chainStart } from './seal.ts';

/** Chains entries once their transactions have committed, and takes those away that are past their retention. */
export interface Sealer {
  start(): void;
  /** Seals what is committed by now. Never rejects; what fails is left for the next time. */
  seal(): Promise<void>;
  /** Takes away what is past its retention, likewise. */
  trim(): Promise<void>;
  /** Seals once more, and resolves when nothing is under way. */
  stop(): Promise<void>;
}

export const sealIntervalMs = 1_000;
const trimIntervalMs = 60_000;
const maxSealedAtOnce = 2_000;
const maxSealedWithoutVacuum = 10_000;
const maxTrimmedAtOnce = 1_000;
/** Held by whoever seals or trims: any number will do, as long as every gateway uses the same. */
const sealLock = 0x41756474;

export function createSealer(deps: {
  readonly database: Database;
  readonly clock: Clock;
  /** Null: for ever. */
  readonly retentionMs: number | null;
  readonly logError: (error: unknown, context: string) => void;
}): Sealer {
  const { clock, retentionMs } = deps;
  const { sql } = deps.database;
  const releases: (() => void)[] = [];
  let atWork: Promise<void> = Promise.resolve();
  let isStopped = false;
  let sealedSinceVacuum = 0;

  /** Null where another gateway is at it. */
  function underLock(work: (tx: TransactionSql) => Promise<number>): Promise<number | null> {
    return sql.begin(async (tx) => {
      const [lock] = await tx<{ isHeld: boolean }[]>`select pg_try_advisory_xact_lock(${sealLock}) as "isHeld"`;
      return lock?.isHeld ? work(tx) : null;
    });
  }

  async function sealAll(): Promise<void> {
    for (;;) {
      const waiting = await sql`select from audit_pending limit 1`;
      if (waiting.count === 0) break;
      const sealed = await underLock(sealSome);
      sealedSinceVacuum += sealed ?? 0;
      if (sealed === null || sealed < maxSealedAtOnce) break;
    }
    if (sealedSinceVacuum < maxSealedWithoutVacuum) return;
    // Each look reads what lies about; autovacuum comes once a minute, and never to the embedded engine.
    await sql`vacuum (skip_locked, truncate false) audit_pending`;
    sealedSinceVacuum = 0;
  }

  async function trimAll(): Promise<void> {
    if (retentionMs === null) return;
    const chains = await sql<{ org_id: string }[]>`select org_id from audit_chains where number > anchor_number`;
    for (const { org_id: chain } of chains)
      while (!isStopped) {
        const trimmed = await underLock((tx) => trimSome(tx, chain, retentionMs));
        if (trimmed === null || trimmed < maxTrimmedAtOnce) break;
      }
  }

  /** One after the other: they share a lock, and the embedded engine has one connection. */
  function inTurn(task: () => Promise<void>, context: string): Promise<void> {
    atWork = atWork.then(task).catch((error) => deps.logError(error, context));
    return atWork;
  }

  const seal = () => inTurn(sealAll, 'audit entries could not be sealed');
  const trim = () => inTurn(trimAll, 'old audit entries could not be taken away');

  return {
    start() {
      releases.push(repeat(clock, sealIntervalMs, seal, () => {}));
      if (retentionMs !== null) releases.push(repeat(clock, trimIntervalMs, trim, () => {}));
    },
    seal,
    trim,
    async stop() {
      isStopped = true;
      for (const release of releases.splice(0)) release();
      await seal();
    },
  };
}

/**
 * Gives what is committed and not sealed its number and hash, organisation by organisation; how many that were. The numbers
 * are the order of the log: an entry whose transaction commits late gets a later one, whatever its id. One statement, in which
 * the entries never leave the database.
 */
async function sealSome(tx: TransactionSql): Promise<number> {
  const [sealed] = await tx<{ count: number }[]>`
    with taken as (
      delete from audit_pending
      where ctid = any(array(select ctid from audit_pending order by id limit ${maxSealedAtOnce})) returning *
    ), placed as (
      select taken.*, coalesce(taken.org_id, '') as chain, coalesce(head.number, 0) + row_number() over (
        partition by coalesce(taken.org_id, '') order by id) as number, coalesce(head.hash, ${chainStart.hash}) as head
      from taken left join audit_chains head on head.org_id = coalesce(taken.org_id, '')
    ), chained as (
      select *, encode(audit_hash(head, ${canonicalText(tx)}) over (
        partition by chain order by id rows unbounded preceding), 'hex') as hash
      from placed
    ), moved as (
      insert into audit_chains (org_id, number, hash)
      select distinct on (chain) chain, number, hash from chained order by chain, number desc
      on conflict (org_id) do update set number = excluded.number, hash = excluded.hash
    ), kept as (
      insert into audit_entries (${entryColumns(tx)}, number, hash)
      select ${entryColumns(tx)}, number, hash from chained order by id
    )
    select count(*) from taken`;
  return sealed?.count ?? 0;
}

/** Takes the oldest entries of a chain as far as all of them are past their time; the last one's hash becomes the anchor. */
async function trimSome(tx: TransactionSql, chain: string, keptMs: number): Promise<number> {
  const [anchor] = await tx<ChainPlace[]>`
    with oldest as (
      select entry.number, entry.hash, bool_and(at < now() - ${keptMs}::float8 * interval '1 millisecond')
        over (order by entry.number) as is_past
      from audit_chains chain, lateral (
        select number, hash, at from audit_entries
        where coalesce(org_id, '') = chain.org_id and number > chain.anchor_number order by number limit ${maxTrimmedAtOnce}
      ) as entry where chain.org_id = ${chain}
    )
    select number, hash from oldest where is_past order by number desc limit 1`;
  if (!anchor) return 0;
  // Before they go: the trigger lets go of nothing else.
  await tx`
    update audit_chains set anchor_number = ${anchor.number}, anchor_hash = ${anchor.hash} where org_id = ${chain}`;
  const gone = await tx`
    delete from audit_entries where coalesce(org_id, '') = ${chain} and number <= ${anchor.number}`;
  await tx`${auditing(
    tx,
    gatewayActor,
    'audit.trim',
    tx`select nullif(${chain}, ''), ${`${anchor.number}`}, null,
      json_build_object('entries', ${gone.count}::integer, 'hash', ${anchor.hash}::text)`,
  )}`;
  return gone.count;
}
