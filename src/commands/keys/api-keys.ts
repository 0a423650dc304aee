import { parseArgs } from 'node:util';
import { z } from 'zod';
import type { ApiKey, ApiKeys } from '../../access/api-keys.ts';
import { commandLine } from '../../access/consumer.ts';
import { createApiKeys } from '../../access/create-api-keys.ts';
import { isIdentifier } from '../../agent-gateway/wire/text.ts';
import { createMemoryBus } from '../../bus/memory-bus.ts';
import { systemClock } from '../../clock.ts';
import type { Config } from '../../config.ts';
import { openDatabase } from '../../db/database.ts';
import { migrate } from '../../db/migrate.ts';
import { AegisError } from '../../errors.ts';
import { maxPageSize } from '../../paging.ts';

const input = z.object({
  name: z.string('must be given'),
  scopes: z.string('must be given').transform((text) => text.split(',').map((scope) => scope.trim())),
  org: z.string().refine(isIdentifier, 'must be 1 to 255 characters without control characters').optional(),
  'all-organisations': z.boolean(),
  'expires-in': z.coerce.number('must be a number of seconds').optional(),
});

/** Makes an API key and writes it to standard output; what it is good for, to standard error. */
export async function createKey(args: readonly string[], config: Config): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      name: { type: 'string' },
      scopes: { type: 'string' },
      org: { type: 'string' },
      'all-organisations': { type: 'boolean', default: false },
      'expires-in': { type: 'string' },
    },
  });
  const parsed = input.safeParse(values);
  if (!parsed.success) {
    const problems = parsed.error.issues.map(({ path, message }) => `--${path.join('.')}: ${message}`);
    process.stderr.write(`${problems.join('\n')}\n`);
    return 2;
  }
  const { name, scopes, org, 'all-organisations': allOrganisations, 'expires-in': expiresInSeconds } = parsed.data;
  return withApiKeys(config, async (apiKeys) => {
    const made = await apiKeys.create(commandLine, {
      ...{ name, permissions: scopes, orgId: org, allOrganisations, expiresInSeconds },
    });
    const { orgId, expiresAt } = made.key;
    const where = orgId === null ? 'all organisations' : orgId;
    const until = expiresAt === null ? 'without an end' : `until ${expiresAt.toISOString()}`;
    process.stderr.write(`${made.key.permissions.join(', ')} in ${where}, ${until}; id ${made.key.id}:\n`);
    process.stdout.write(`${made.secret}\n`);
  });
}

/** Lists every API key, a line each. */
export function listKeys(config: Config): Promise<number> {
  return withApiKeys(config, async (apiKeys) => {
    let after: string | null = null;
    do {
      const page = await apiKeys.page(commandLine, { first: maxPageSize, after });
      for (const key of page.items) process.stdout.write(`${lineOf(key)}\n`);
      const last: ApiKey | undefined = page.items.at(-1);
      after = page.hasNextPage && last ? apiKeys.cursorOf(last) : null;
    } while (after !== null);
  });
}

export function revokeKey(id: string, config: Config): Promise<number> {
  return withApiKeys(config, async (apiKeys) => {
    process.stdout.write(`${lineOf(await apiKeys.revoke(commandLine, id))}\n`);
  });
}

function lineOf({ id, prefix, state, orgId, permissions, name, expiresAt, lastUsedAt }: ApiKey): string {
  const time = (date: Date | null) => date?.toISOString() ?? 'never';
  const parts = [id, prefix, state.padEnd(7), orgId ?? '(all organisations)', permissions.join(',')];
  return [...parts, `expires ${time(expiresAt)}`, `used ${time(lastUsedAt)}`, JSON.stringify(name)].join('  ');
}

/** What cannot be done is told in a sentence and ends with 2. Running gateways find by their own look what was revoked. */
async function withApiKeys(config: Config, work: (apiKeys: ApiKeys) => Promise<void>): Promise<number> {
  const logError = () => {};
  const database = await openDatabase(config);
  try {
    await migrate(database);
    const deps = {
      database,
      bus: createMemoryBus(logError),
      ...{ clock: systemClock, wall: systemClock },
      defaultOrg: config.defaultOrg,
      logError,
    };
    await work(createApiKeys(deps).apiKeys);
    return 0;
  } catch (error) {
    if (!(error instanceof AegisError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return 2;
  } finally {
    await database.close();
  }
}
