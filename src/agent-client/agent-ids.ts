/** Ids and nonces as deployed agents make them. */
import type { AgentClock } from './clock.ts';

export interface AgentIds {
  /** `<prefix>_<Unix nanoseconds>`; never the same twice. */
  stamped(prefix: 'auth' | 'reg_init' | 'reg_complete'): string;
  /** `msg_<Unix nanoseconds>_<random 63-bit integer>` */
  message(): string;
  /** `heartbeat_<Unix seconds>`: two in one second share it. */
  heartbeat(): string;
}

/** Ids of one agent, from its clock and random source. */
export function agentIds(clock: AgentClock, randomBytes: (length: number) => Uint8Array): AgentIds {
  let lastNanos = 0n;
  const nanos = (): bigint => {
    const now = BigInt(Math.trunc(clock.nowMs())) * 1_000_000n;
    lastNanos = now > lastNanos ? now : lastNanos + 1n;
    return lastNanos;
  };
  return {
    stamped: (prefix) => `${prefix}_${nanos()}`,
    message: () => `msg_${nanos()}_${Buffer.from(randomBytes(8)).readBigUInt64BE() >> 1n}`,
    heartbeat: () => `heartbeat_${unixSeconds(clock)}`,
  };
}

/** The clock in Unix seconds, rounded down. */
export function unixSeconds(clock: AgentClock): number {
  return Math.floor(clock.nowMs() / 1000);
}
