import type { TransactionSql } from 'postgres';
import type { Database } from '../db/database.ts';
import { type ChainPlace, contentColumns, contentOf, nextPlace } from './seal.ts';

/** The head of a chain, as it is or as somebody noted it. */
export interface ChainHead extends ChainPlace {
  /** Null: the entries of no organisation in particular. */
  readonly orgId: string | null;
}

export interface ChainReport {
  readonly orgId: string | null;
  /** What retention has left off with; number 0 where it took nothing. */
  readonly anchor: ChainPlace;
  readonly head: ChainPlace;
  /** Entries that were found good, up to the first that was not. */
  readonly verified: number;
  /** Entries that wait to be sealed, and prove nothing yet. */
  readonly unsealed: number;
  /** What is wrong at the first broken link; null where none is. */
  readonly fault: string | null;
}

const pageEntries = 1_000;

interface StoredChain {
  readonly chain: string;
  readonly anchor: ChainPlace;
  readonly head: ChainPlace;
}

/** The heads of all chains, or of one organisation's. */
export async function readHeads({ sql }: Database): Promise<ChainHead[]> {
  const rows = await sql<{ org_id: string; number: number; hash: string }[]>`
    select org_id, number, hash from audit_chains order by org_id`;
  return rows.map(({ org_id, number, hash }) => ({ orgId: org_id || null, number, hash }));
}

/**
 * Follows every chain from its anchor to its head, in one snapshot. `noted` are heads that were kept elsewhere: without one
 * nothing tells a chain that was shortened, or written anew from some entry on, from one that was always so.
 */
export async function verifyChains({ sql }: Database, noted: readonly ChainHead[]): Promise<ChainReport[]> {
  return sql.begin('isolation level repeatable read read only', async (tx) => {
    const rows = await tx`
      select org_id, anchor_number, anchor_hash, number, hash from audit_chains
      union
      select distinct coalesce(org_id, ''), 0, ${'0'.repeat(64)}, 0, ${'0'.repeat(64)} from audit_pending
      where not exists (select from audit_chains where org_id = coalesce(audit_pending.org_id, ''))
      order by org_id`;
    const reports: ChainReport[] = [];
    for (const row of rows) {
      const chain: StoredChain = {
        chain: row.org_id,
        anchor: { number: row.anchor_number, hash: row.anchor_hash },
        head: { number: row.number, hash: row.hash },
      };
      const expected = noted.filter(({ orgId }) => (orgId ?? '') === chain.chain);
      reports.push(await verifyChain(tx, chain, expected));
    }
    const found = new Set(reports.map(({ orgId }) => orgId));
    for (const { orgId, ...head } of noted)
      if (!found.has(orgId)) {
        found.add(orgId);
        reports.push({ orgId, anchor: head, head, verified: 0, unsealed: 0, fault: 'the whole chain is missing' });
      }
    return reports;
  });
}

async function verifyChain(
  tx: TransactionSql,
  { chain, anchor, head }: StoredChain,
  noted: readonly ChainHead[],
): Promise<ChainReport> {
  const [waiting] = await tx<{ count: number }[]>`
    select count(*) from audit_pending where coalesce(org_id, '') = ${chain}`;
  let place = anchor;
  const report = (fault: string | null): ChainReport => ({
    ...{ orgId: chain || null, anchor, head, fault },
    verified: place.number - anchor.number,
    unsealed: waiting?.count ?? 0,
  });
  if (noted.some(({ number, hash }) => number === anchor.number && hash !== anchor.hash))
    return report(`number ${anchor.number}, which retention took last, is not the one that was noted`);
  for (;;) {
    const rows = await tx`
      select number, hash, ${contentColumns(tx)} from audit_entries
      where coalesce(org_id, '') = ${chain} and number > ${place.number} order by number limit ${pageEntries}`;
    for (const row of rows) {
      if (row.number !== place.number + 1) return report(missing(place.number + 1, row.number - 1));
      const next = nextPlace(place, contentOf(row));
      if (next.hash !== row.hash)
        return report(
          `number ${row.number} (entry ${row.id}) does not follow from the one before: it was changed, put in, or moved here`,
        );
      place = next;
      const expected = noted.find(({ number }) => number === next.number);
      if (expected && expected.hash !== next.hash)
        return report(`number ${next.number} is not the one that was noted: the chain was written anew up to here`);
    }
    if (rows.length < pageEntries) break;
  }
  return report(faultAtTheEnd(place, head, noted));
}

function faultAtTheEnd(last: ChainPlace, head: ChainPlace, noted: readonly ChainHead[]): string | null {
  const furthest = Math.max(head.number, ...noted.map(({ number }) => number));
  if (furthest > last.number) return missing(last.number + 1, furthest);
  if (head.number < last.number) return `number ${head.number + 1} and those after it were put in behind the head`;
  return head.hash === last.hash ? null : `number ${last.number} is not the head that was written`;
}

function missing(first: number, last: number): string {
  return first === last ? `number ${first} is missing` : `numbers ${first} to ${last} are missing`;
}
