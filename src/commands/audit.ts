import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type ChainHead, type ChainReport, readHeads, verifyChains } from '../audit/verify.ts';
import type { Config } from '../config.ts';
import { openDatabase } from '../db/database.ts';
import { migrate } from '../db/migrate.ts';

const usage = 'Usage: aegis-gateway audit head | verify [--heads FILE]\n';

/** How the chain of no organisation in particular is called; no organisation can be. */
const noOrganisation = '-';

/**
 * `audit head`: the head of each chain, a line each, to be kept elsewhere. `audit verify`: follows every chain, and says of
 * each how it stands; 1 where one is broken. With `--heads`, lines that `audit head` has written must lie on the chains.
 */
export async function auditFromArguments(args: readonly string[], config: Config): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    options: { heads: { type: 'string' } },
    allowPositionals: true,
  });
  const [action, ...rest] = positionals;
  const isKnown = action === 'verify' || (action === 'head' && values.heads === undefined);
  if (!isKnown || rest.length > 0) return misused(usage);
  const noted = values.heads === undefined ? [] : headsIn(readFileSync(values.heads, 'utf8'));
  if (noted === null) return misused(`${values.heads}: a line is not one that \`audit head\` has written\n`);

  const database = await openDatabase(config);
  try {
    await migrate(database);
    if (action === 'head') {
      for (const head of await readHeads(database)) process.stdout.write(`${lineOf(head)}\n`);
      return 0;
    }
    const reports = await verifyChains(database, noted);
    for (const report of reports) process.stdout.write(`${verdictOf(report)}\n`);
    return reports.some(({ fault }) => fault !== null) ? 1 : 0;
  } finally {
    await database.close();
  }
}

function misused(text: string): number {
  process.stderr.write(text);
  return 2;
}

function lineOf({ orgId, number, hash }: ChainHead): string {
  return `${orgId ?? noOrganisation} ${number} ${hash}`;
}

/** Null where a line is none. An organisation's name may hold spaces. */
function headsIn(text: string): ChainHead[] | null {
  const heads: ChainHead[] = [];
  for (const line of text.split('\n').filter((each) => each.trim() !== '')) {
    const [, org, number, hash] = /^(.+) (\d{1,15}) ([0-9a-f]{64})$/.exec(line) ?? [];
    if (org === undefined || number === undefined || hash === undefined) return null;
    heads.push({ orgId: org === noOrganisation ? null : org, number: Number(number), hash });
  }
  return heads;
}

function verdictOf({ orgId, anchor, head, verified, unsealed, fault }: ChainReport): string {
  const name = orgId ?? noOrganisation;
  const from = anchor.number === 0 ? '' : `, from number ${anchor.number + 1} on: retention took what was before`;
  const waiting = unsealed === 0 ? '' : `; ${unsealed} not sealed yet`;
  const last = anchor.number + verified;
  return fault === null
    ? `ok      ${name}: ${verified} entries${from}, head ${head.number} ${head.hash}${waiting}`
    : `BROKEN  ${name}: ${fault}. Good as far as number ${last}${from}${waiting}`;
}
