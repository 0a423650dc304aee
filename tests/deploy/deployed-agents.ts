import { deployedHabits, startV1Agent, type Timings } from '../../src/agent-client/index.ts';
import { connectAgent, createMemoryStore, type V2Agent, wsTransport } from '../../src/agent-client/v2/node/index.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';

/** An event that its agent knows to have been taken: v1 has written it to a link that was open, v2 has it acknowledged. */
export interface TakenEvent {
  readonly agent: string;
  readonly messageId: string;
  readonly reportedAtMs: number;
  /** Whether the agent was connected when it was reported. */
  readonly wasConnected: boolean;
}

/**
 * Agents as they are in the field: those of v1 dial 7 s after a drop, all alike, replace sound links from then on, and never dial
 * again after one attempt that failed; those of v2 come back as docs/PROTOCOL.md says. Over TLS, which they verify.
 */
export interface DeployedAgents {
  readonly names: readonly string[];
  readonly taken: readonly TakenEvent[];
  /** Ids of the commands that each agent has read, in that order; what v2 hands over, it hands over once. */
  commandsReadBy(name: string): readonly string[];
  /** Those that never dial again, each with the failure that it did not get over. */
  readonly stranded: readonly string[];
  /** Those without a link at this moment. */
  readonly away: readonly string[];
  /** The longest that any agent was without one, as looked at every few milliseconds. */
  readonly longestAwayMs: number;
  /** Links opened so far, of all agents together. */
  readonly links: number;
  /** Resolves when every report under way is settled. */
  stopReporting(): Promise<void>;
  close(): Promise<void>;
}

interface Member {
  readonly name: string;
  readonly isConnected: boolean;
  readonly links: number;
  readonly failure: string | null;
  readonly commandsRead: readonly string[];
  report(number: number, messageId: string): Promise<unknown>;
  close(): Promise<void> | void;
}

const tickMs = 20;
/** More than any run has. */
const journalLimit = 100_000;

export async function startDeployedAgents(options: {
  readonly agentUrl: string;
  /** What they trust. */
  readonly certificate: string;
  readonly v1: number;
  readonly v2: number;
  /** Of all agents together; 0: none. */
  readonly reportsPerSecond: number;
  /** Departures of those of v1 from deployed ones. */
  readonly timings?: Partial<Timings>;
}): Promise<DeployedAgents> {
  const { agentUrl: url, certificate: ca } = options;
  const taken: TakenEvent[] = [];
  const underWay = new Set<Promise<void>>();
  const awaySinceMs = new Map<string, number>();
  let longestAwayMs = 0;
  let number = 0;
  let due = 0;
  let isReporting = options.reportsPerSecond > 0;

  function startV1(name: string): Member {
    const agent = startV1Agent({
      ...{ url, agentId: name, suite: nativeCrypto, habits: deployedHabits.enveloped, journalLimit },
      ...{ timings: options.timings ?? {}, socket: { ca } },
    });
    return {
      name,
      get isConnected() {
        return agent.state === 'ready';
      },
      get links() {
        return agent.events.entries.filter(({ type }) => type === 'ready').length;
      },
      get failure() {
        if (!agent.isStranded) return null;
        const failed = agent.events.entries.findLast(({ type }) => type === 'failed');
        return failed?.type === 'failed' ? failed.failure.message : 'unknown';
      },
      get commandsRead() {
        return agent.commands.entries.map(({ id }) => id);
      },
      report: (number, id) => agent.sendEvent('anomalies', { number, severity: 'low' }, { id }),
      close: () => agent.terminate(),
    };
  }

  async function startV2(name: string): Promise<Member> {
    const agent: V2Agent = await connectAgent({
      ...{ url, agentId: name, pins: 'trust-first', store: createMemoryStore(), transport: wsTransport({ ca }) },
    });
    const commandsRead: string[] = [];
    agent.onCommand(({ id }) => void commandsRead.push(id));
    return {
      name,
      get isConnected() {
        return agent.state === 'open';
      },
      get links() {
        return agent.statistics.links;
      },
      failure: null,
      commandsRead,
      report: (number, id) => agent.report('anomalies', { number, severity: 'low' }, { id }),
      close: () => agent.close(),
    };
  }

  const members = await Promise.all([
    ...Array.from({ length: options.v1 }, (_, index) => startV1(`host-${index + 1}.example`)),
    ...Array.from({ length: options.v2 }, (_, index) => startV2(`new-${index + 1}.example`)),
  ]);

  async function report(member: Member): Promise<void> {
    const { name: agent, isConnected: wasConnected } = member;
    const messageId = `${agent}-${++number}`;
    const reportedAtMs = performance.now();
    await member.report(number, messageId).then(
      () => taken.push({ agent, messageId, reportedAtMs, wasConnected }),
      // What a link that has ended does not take, its agent knows to be lost.
      () => {},
    );
  }

  function look(nowMs: number): void {
    for (const { name, isConnected } of members) {
      const sinceMs = awaySinceMs.get(name) ?? nowMs;
      longestAwayMs = Math.max(longestAwayMs, nowMs - sinceMs);
      if (isConnected) awaySinceMs.delete(name);
      else awaySinceMs.set(name, sinceMs);
    }
  }

  let turn = 0;
  const ticking = setInterval(() => {
    look(performance.now());
    if (!isReporting) return;
    for (due += (options.reportsPerSecond * tickMs) / 1_000; due >= 1; due--) {
      const member = members[turn++ % members.length];
      if (!member) return;
      const reporting = report(member).finally(() => underWay.delete(reporting));
      underWay.add(reporting);
    }
  }, tickMs);

  return {
    names: members.map(({ name }) => name),
    taken,
    commandsReadBy: (name) => members.find((member) => member.name === name)?.commandsRead ?? [],
    get stranded() {
      return members.flatMap(({ name, failure }) => (failure === null ? [] : [`${name}: ${failure}`]));
    },
    get away() {
      return members.filter(({ isConnected }) => !isConnected).map(({ name }) => name);
    },
    get longestAwayMs() {
      return longestAwayMs;
    },
    get links() {
      return members.reduce((sum, { links }) => sum + links, 0);
    },
    async stopReporting() {
      isReporting = false;
      await Promise.all(underWay);
    },
    async close() {
      clearInterval(ticking);
      await Promise.all(members.map((member) => member.close()));
    },
  };
}
