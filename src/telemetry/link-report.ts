import type { LinkReport } from '../agent-gateway/context.ts';
import type { Clock } from '../clock.ts';
import type { ErrorCode } from '../errors.ts';
import type { Logger } from './log.ts';
import type { Metrics } from './metrics.ts';

const summaryIntervalMs = 10_000;
/** Agents that flap send some frames twice; nobody needs to be told. */
const expected: ReadonlySet<ErrorCode> = new Set(['FRAME_REPLAYED']);

/**
 * What links tell, into metrics and the log. Every refused frame is counted; the log gets a line for each reason and
 * interval, so that a hostile or flapping agent cannot fill it.
 */
export function createLinkReport(log: Logger, metrics: Metrics, clock: Clock): LinkReport & { stop(): void } {
  const refused = new Map<ErrorCode, { count: number; agent: string }>();
  const stop = clock.every(summaryIntervalMs, summarise);

  function summarise(): void {
    for (const [code, { count, agent }] of refused)
      log[expected.has(code) ? 'debug' : 'warn']({ code, count, lastAgent: agent }, 'frames were refused');
    refused.clear();
  }

  function refusedFrame(agent: string, code: ErrorCode): void {
    metrics.frameRefused(code);
    refused.set(code, { count: (refused.get(code)?.count ?? 0) + 1, agent });
  }

  return {
    refusedUpgrade(code) {
      metrics.upgradeRefused(code);
      log.debug({ code }, 'an upgrade was refused');
    },
    admittedUpgrade: (heldMs) => metrics.upgradeAdmitted(heldMs),
    authenticated({ protocol, agentName, durationMs, code }) {
      metrics.authenticated(protocol, durationMs, code);
      if (code) log.info({ code, protocol, agent: agentName }, 'an authentication was refused');
    },
    refusedFrame,
    failedHandshake: (fault) => metrics.handshakeFailed(fault),
    refusedRecord(agent, fault) {
      metrics.recordRefused(fault);
      refusedFrame(agent, 'RECORD_INVALID');
    },
    opened: (agent, remoteAddress) => log.debug({ agent, remoteAddress }, 'a link opened'),
    closed: (agent, reason) => log.debug({ agent, reason }, 'a link closed'),
    error: (error, context) => log.error({ err: error }, context),
    stop() {
      stop();
      summarise();
    },
  };
}
