import { parseArgs } from 'node:util';
import { z } from 'zod';
import { simulate } from '../agent-client/index.ts';

const input = z.object({
  url: z.url(),
  agents: z.coerce.number().int().min(1).max(100_000),
  rate: z.coerce.number().min(0).max(1_000_000),
  seconds: z.coerce.number().positive().optional(),
  handoff: z.boolean(),
});

/** `simulate --url … --agents … --rate …`: drives any gateway until its time is over or SIGINT. */
export async function simulateFromArguments(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      url: { type: 'string', default: 'ws://127.0.0.1:8080/ws/agent' },
      agents: { type: 'string', default: '100' },
      rate: { type: 'string', default: '50' },
      seconds: { type: 'string' },
      handoff: { type: 'boolean', default: false },
    },
  });
  const parsed = input.safeParse(values);
  if (!parsed.success) {
    process.stderr.write(
      `${parsed.error.issues.map((issue) => `--${issue.path.join('.')}: ${issue.message}`).join('\n')}\n`,
    );
    return 2;
  }
  const { url, agents, rate, seconds, handoff } = parsed.data;
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  process.once('SIGTERM', () => stop.abort());
  const totals = await simulate({
    url,
    agents,
    ratePerSecond: rate,
    dialects: handoff ? ['enveloped', 'handoff'] : ['enveloped'],
    ...(seconds === undefined ? {} : { durationMs: seconds * 1_000 }),
    signal: stop.signal,
    out: (line) => process.stdout.write(`${line}\n`),
  });
  process.stdout.write(`${JSON.stringify(totals)}\n`);
  return totals.errors > 0 || totals.stranded > 0 ? 1 : 0;
}
