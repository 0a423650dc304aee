import type { History } from '../faults/history.ts';
import { violationsIn } from '../faults/invariants.ts';
import type { FaultStage } from '../faults/stage.ts';

/** What a run did and what came of it, for a person to read. */
export function summary(
  history: History,
  run: {
    readonly seed: number;
    readonly killed: number;
    readonly restarted: number;
    /** From each fault to the moment when every agent was connected again. */
    readonly recoveriesMs: readonly number[];
    readonly stage: FaultStage;
  },
): string {
  const { sends, reads, reports, streams, stored } = history;
  const { fleet, load } = run.stage;
  const accepted = sends.filter(({ answers }) => answers.length > 0);
  const statuses = new Map<string, number>();
  for (const { status } of stored.messages) statuses.set(status, (statuses.get(status) ?? 0) + 1);
  const readOnce = new Set(reads.map(({ messageId }) => messageId)).size;
  const recoveries = [...run.recoveriesMs].sort((a, b) => a - b).map((recoveryMs) => (recoveryMs / 1_000).toFixed(1));
  const storedIds = new Set(stored.events.map(({ agent, messageId }) => `${agent} ${messageId}`));
  const lost = reports.filter(({ agent, messageId }) => !storedIds.has(`${agent} ${messageId}`)).length;
  const violations = violationsIn(history, { isAtRest: false });
  return [
    `Crash suite, seed ${run.seed} (CRASH_SEED=${run.seed} npm run test:crash repeats its choices)`,
    `  faults      ${run.killed} times SIGKILL, ${run.restarted} times Postgres; everyone back after ${recoveries[Math.floor(recoveries.length / 2)]} s in the median, ${recoveries.at(-1)} s at most`,
    `  messages    ${accepted.length} accepted with ${accepted.flatMap(({ answers }) => answers).length} answers, ${load.lostAnswers} answers lost; ${[...statuses].map(([status, count]) => `${count} ${status}`).join(', ')}`,
    `  commands    ${reads.length} read by agents, ${reads.length - readOnce} of them again`,
    `  events      ${reports.length} written, ${fleet.repeated} of them twice, ${lost} of them to dead sockets; ${stored.events.length} stored`,
    `  shown       ${streams.map(({ name, events }) => `${events.length} to ${name}`).join(', ')}`,
    `  violations  ${violations.length}`,
    '',
  ].join('\n');
}
