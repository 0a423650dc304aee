import { parseArgs } from 'node:util';
import { z } from 'zod';
import { commandLine } from '../access/consumer.ts';
import { isIdentifier } from '../agent-gateway/wire/text.ts';
import type { Config } from '../config.ts';
import { openDatabase } from '../db/database.ts';
import { migrate } from '../db/migrate.ts';
import { createEnrollmentTokens } from '../fleet/create-enrollment-tokens.ts';
import { maxTokenLifeSeconds } from '../fleet/enrollment-tokens.ts';

const identifier = z.string().refine(isIdentifier, 'must be 1 to 255 characters without control characters');

const input = z.object({
  org: identifier.optional(),
  agent: identifier.optional(),
  'expires-in': z.coerce.number().int().min(1).max(maxTokenLifeSeconds),
  note: z.string().max(1_000).optional(),
});

/** `tokens create`: makes an enrolment token and writes it to standard output, where alone it is ever seen. */
export async function tokensFromArguments(args: readonly string[], config: Config): Promise<number> {
  const [action, ...rest] = args;
  if (action !== 'create') {
    process.stderr.write('Usage: aegis-gateway tokens create [--org …] [--agent …] [--expires-in 3600] [--note …]\n');
    return 2;
  }
  const { values } = parseArgs({
    args: rest,
    options: {
      org: { type: 'string' },
      agent: { type: 'string' },
      'expires-in': { type: 'string', default: '3600' },
      note: { type: 'string' },
    },
  });
  const parsed = input.safeParse(values);
  if (!parsed.success) {
    process.stderr.write(
      `${parsed.error.issues.map((issue) => `--${issue.path.join('.')}: ${issue.message}`).join('\n')}\n`,
    );
    return 2;
  }
  const { org, agent, 'expires-in': expiresInSeconds, note } = parsed.data;
  const database = await openDatabase(config);
  try {
    await migrate(database);
    const tokens = createEnrollmentTokens({ database, defaultOrg: config.defaultOrg });
    const { secret, token } = await tokens.create(commandLine, {
      ...{ orgId: org, agentName: agent, note, expiresInSeconds },
    });
    const whom = token.agentName === null ? 'one new agent' : `the agent ${token.agentName}`;
    process.stderr.write(`For ${whom} of ${token.orgId}, until ${token.expiresAt.toISOString()}:\n`);
    process.stdout.write(`${secret}\n`);
    return 0;
  } finally {
    await database.close();
  }
}
