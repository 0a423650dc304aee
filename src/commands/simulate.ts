import { parseArgs } from 'node:util';
import { z } from 'zod';
import { simulate } from '../agent-client/index.ts';

const input = z.object({
  url: z.url(),
  agents: z.coerce.number().int().min(1).max(100_000),
  rate: z.coerce.number().min(0).max(1_000_000),
  seconds: z.coerce.number().positive().optional(),
  handoff: z.boolean(),
  protocol: z.enum(['v1', 'v2', 'mixed']),
  pin: z
    .array(z.string().regex(/^[0-9a-f]{64}$/i, '64 hexadecimal digits, as `keys list` prints them'))
    .min(1)
    .optional(),
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
      protocol: { type: 'string', default: 'v1' },
      pin: { type: 'string', multiple: true },
    },
  });
  const parsed = input.safeParse(values);
  if (!parsed.success) {
    process.stderr.write(
      `${parsed.error.issues.map((issue) => `--${String(issue.path[0])}: ${issue.message}`).join('\n')}\n`,
    );
    return 2;
  }
  const { url, agents, rate, seconds, handoff, protocol, pin } = parsed.data;
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  process.once('SIGTERM', () => stop.abort());
  const totals = await simulate({
    url,
    agents,
    ratePerSecond: rate,
    protocol,
    ...(pin ? { pins: pin } : {}),
    dialects: handoff ? ['enveloped', 'handoff'] : ['enveloped'],
    ...(seconds === undefined ? {} : { durationMs: seconds * 1_000 }),
    signal: stop.signal,
    out: (line) => process.stdout.write(`${line}\n`),
  });
  process.stdout.write(`${JSON.stringify(totals)}\n`);
  return totals.errors > 0 || totals.stranded > 0 ? 1 : 0;
}
