import type { CryptoSuite } from '../agent-gateway/crypto/suite.ts';
import type { EventKind } from '../agent-gateway/wire/channels.ts';
import type { AgentClock } from './clock.ts';
import type { JsonValue } from './go-json.ts';
import { type Dialect, deployedHabits, type Habits } from './habits.ts';
import { startV1Agent } from './v1-agent.ts';
import type { V1AgentOptions } from './v1-options.ts';
import type { V2Clock } from './v2/clock.ts';
import { type AgentOptions, connectAgent, createMemoryStore, wsTransport } from './v2/node/index.ts';

/** An agent of a simulation, of whichever protocol. */
export interface SimulatedAgent {
  readonly isConnected: boolean;
  /** Whether it takes a report now. */
  readonly isFree: boolean;
  readonly commandsReceived: number;
  /** Dials and handshakes that came to nothing. */
  readonly failures: number;
  /** Whether it will not dial again. */
  readonly isStranded: boolean;
  /** Resolves when it is connected. Rejects where that takes too long. */
  ready(): Promise<void>;
  /** Resolves when the report was written, or, of v2, acknowledged. */
  report(kind: EventKind, body: JsonValue): Promise<void>;
  close(): Promise<void>;
}

export interface SimulatedAgentOptions {
  readonly url: string;
  readonly agentId: string;
  readonly suite: CryptoSuite;
  readonly clock: AgentClock;
  /** TLS trust and the like, handed to `ws`. */
  readonly socket: NonNullable<V1AgentOptions['socket']>;
}

const readyTimeoutMs = 30_000;
/** How long what is under way may take to be acknowledged at the end. */
const drainMs = 3_000;
/** An agent whose socket takes no more than this is passed over until it does. */
const maxBufferedBytes = 256 * 1024;
/** So many unacknowledged reports of one agent at once. */
const maxUnacknowledged = 1_000;

export function startSimulatedV1Agent(
  { url, agentId, suite, clock, socket }: SimulatedAgentOptions,
  dialect: Dialect,
  habits: Partial<Habits>,
): SimulatedAgent {
  const agent = startV1Agent({
    ...{ url, agentId, dialect, suite, clock, socket },
    habits: { ...deployedHabits[dialect], ...habits },
    facts: { platform: { arch: 'amd64', hostname: agentId, os: 'linux' } },
    journalLimit: 20,
  });
  return {
    get isConnected() {
      return agent.state === 'ready';
    },
    get isFree() {
      return agent.state === 'ready' && agent.bufferedBytes < maxBufferedBytes;
    },
    get commandsReceived() {
      return agent.commands.count;
    },
    get failures() {
      return agent.failureCount;
    },
    get isStranded() {
      return agent.isStranded;
    },
    ready: () => agent.ready({ timeoutMs: readyTimeoutMs }),
    async report(kind, body) {
      await agent.sendEvent(kind, body);
    },
    close: () => agent.close(),
  };
}

/** Keeps nothing beyond the process, and answers every command with nothing. */
export async function startSimulatedV2Agent(
  { url, agentId, suite, clock, socket }: SimulatedAgentOptions,
  pins: AgentOptions['pins'],
): Promise<SimulatedAgent> {
  const agent = await connectAgent({
    ...{ url, agentId, pins, store: createMemoryStore(), crypto: suite, transport: wsTransport(socket) },
    host: { platform: { arch: 'amd64', hostname: agentId, os: 'linux' } },
    clock: withMonotonic(clock),
  });
  agent.onCommand(() => null);
  const underWay = new Set<Promise<void>>();
  return {
    get isConnected() {
      return agent.state === 'open';
    },
    get isFree() {
      return agent.state === 'open' && agent.statistics.outboxItems < maxUnacknowledged;
    },
    get commandsReceived() {
      return agent.statistics.commandsTaken;
    },
    get failures() {
      return agent.statistics.failedAttempts;
    },
    isStranded: false,
    ready: () => within(agent.ready(), readyTimeoutMs, clock),
    report(kind, body) {
      const reported = agent.report(kind, body);
      const settled = reported.catch(() => undefined).finally(() => underWay.delete(settled));
      underWay.add(settled);
      return reported;
    },
    async close() {
      await within(Promise.all(underWay), drainMs, clock).catch(() => undefined);
      await agent.close();
    },
  };
}

/** Rejects after that time. */
function within(wanted: Promise<unknown>, timeoutMs: number, clock: AgentClock): Promise<void> {
  return new Promise((resolve, reject) => {
    const cancel = clock.schedule(timeoutMs, () => reject(new Error(`not within ${timeoutMs} ms`)));
    wanted.finally(cancel).then(() => resolve(), reject);
  });
}

/** The machine's own clock has one; another is taken to be steady. */
function withMonotonic(clock: AgentClock): V2Clock {
  return {
    nowMs: () => clock.nowMs(),
    monotonicMs: () => clock.nowMs(),
    schedule: (delayMs, action) => clock.schedule(delayMs, action),
  };
}
