import { AegisError } from '../errors.ts';
import type { GatewayContext } from './context.ts';

/** Agents wait 10 s for each answer of their handshake. */
const patienceMs = 8_000;
const retryMs = 500;

/**
 * Does `work` again while it fails in an unforeseen way, as it does when the database is away: a v1 agent whose handshake
 * fails is lost until its process restarts (agent-wire, "One reconnect that fails strands it for good"). What it throws as
 * an AegisError is an answer and is thrown on; UNAVAILABLE where the patience ends.
 */
export async function patiently<Result>(
  { clock, report }: Pick<GatewayContext, 'clock' | 'report'>,
  subject: string,
  work: () => Promise<Result>,
): Promise<Result> {
  const deadlineMs = clock.now() + patienceMs;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (error instanceof AegisError) throw error;
      report.error(error, `${subject} failed`);
      if (clock.now() > deadlineMs) throw new AegisError('UNAVAILABLE');
      await new Promise<void>((resolve) => clock.after(retryMs, resolve));
    }
  }
}
