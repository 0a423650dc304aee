import type { SeededRandom } from '../../src/agent-client/seeded-random.ts';
import {
  type AgentStore,
  connectAgent,
  createMemoryStore,
  type JournalEntry,
  type V2Agent,
  type V2Clock,
} from '../../src/agent-client/v2/node/index.ts';
import { type EventKind, eventKinds } from '../../src/agent-gateway/wire/channels.ts';
import { type AgentFact, type CommandRead, preciseNowMs, type Report } from './history.ts';

/**
 * Agents of v2, whose time runs three times as fast, so that they notice in ten seconds what is acknowledged to nobody. Their
 * stores are their journals.
 */
export interface V2Fleet {
  readonly names: readonly string[];
  /** What they took charge of. */
  readonly reads: readonly CommandRead[];
  /** What their handlers were given. */
  readonly applied: readonly AgentFact[];
  /** What they reported, answers to commands among it. */
  readonly reports: readonly Report[];
  /** Reports that the gateway acknowledged. */
  readonly acknowledged: readonly AgentFact[];
  /** Reports that it refused, as sentences: there is nothing wrong with them. */
  readonly refusals: readonly string[];
  readonly away: readonly string[];
  stopReporting(): void;
  /** What is reported and not acknowledged, as sentences. */
  unacknowledged(): readonly string[];
  /** What became of an agent's links of late; empty for one that is not of this fleet. */
  story(name: string): string;
  close(): Promise<void>;
}

const haste = 3;
/** A gateway may take 8 s where the database is away. */
const answerPatienceMs = 10_000;
const tickMs = 50;
const reportedKinds: readonly [EventKind, ...EventKind[]] = ['threats', 'anomalies', 'processes', 'logs'];

export async function startV2Fleet(options: {
  readonly agentUrl: string;
  readonly count: number;
  /** Of all agents together. */
  readonly reportsPerSecond: number;
  readonly random: SeededRandom;
}): Promise<V2Fleet> {
  const { agentUrl, count, random } = options;
  const reads: CommandRead[] = [];
  const applied: AgentFact[] = [];
  const reports: Report[] = [];
  const acknowledged: AgentFact[] = [];
  const refusals: string[] = [];
  const stories = new Map<string, string[]>();
  let number = 0;
  let isOver = false;

  /** Notes what lasts, once it does. */
  function journal(agent: string): AgentStore {
    const store = createMemoryStore();
    return {
      ...store,
      async append(entries) {
        await store.append(entries);
        for (const entry of entries) note(agent, entry);
      },
    };
  }

  function note(agent: string, entry: JournalEntry): void {
    if (entry.op === 'take') reads.push({ agent, messageId: entry.command.id, link: 1, readAtMs: preciseNowMs() });
    if (entry.op !== 'put') return;
    const { id: messageId, channel, payloadText } = entry.item;
    const kind = eventKinds.find((name) => channel === `agent.${name}`);
    if (kind === undefined) throw new Error(`${agent} reports on ${channel}`);
    const payload: unknown = JSON.parse(payloadText);
    // Whatever becomes of its links, a report goes out in the order in which it was written down; answers go ahead.
    const link = entry.item.priority === 'high' ? 2 : 1;
    const written = { writtenAtMs: preciseNowMs(), isRepeated: false };
    reports.push({ agent, messageId, kind, link, number: numberIn(payload), ...written });
  }

  async function start(agentId: string): Promise<V2Agent> {
    const waits = { dialTimeoutMs: haste * answerPatienceMs, handshakeTimeoutMs: haste * answerPatienceMs };
    const timings = { ...waits, backoffBaseMs: 600, backoffMaxMs: 3_000, supersededMs: 3_000 };
    const agent = await connectAgent({
      ...{ url: agentUrl, agentId, pins: 'trust-first' as const, store: journal(agentId), clock: hastyClock, timings },
      random: () => random.fraction(),
    });
    const story: string[] = [];
    stories.set(agentId, story);
    agent.onStatus((status) => void story.push(`${new Date().toISOString()} ${JSON.stringify(status)}`));
    agent.onCommand(({ id }) => {
      applied.push({ agent: agentId, messageId: id });
      return { applied: true };
    });
    return agent;
  }

  async function report(agent: V2Agent): Promise<void> {
    const { agentId } = agent;
    const messageId = `${agentId}-${++number}`;
    try {
      await agent.report(
        random.pick(reportedKinds),
        { number, type: 'fault matrix', severity: 'low' },
        { id: messageId },
      );
      acknowledged.push({ agent: agentId, messageId });
    } catch (error) {
      if (!isOver) refusals.push(`${messageId} was refused: ${error}`);
    }
  }

  const agents = await Promise.all(Array.from({ length: count }, (_, index) => start(`v2-${index + 1}.example`)));
  const reporting = setInterval(() => {
    for (const agent of agents)
      if (random.chance((options.reportsPerSecond * tickMs) / 1_000 / count)) void report(agent);
  }, tickMs);

  return {
    names: agents.map(({ agentId }) => agentId),
    reads,
    applied,
    reports,
    acknowledged,
    refusals,
    get away() {
      return agents.filter(({ state }) => state !== 'open').map(({ agentId }) => agentId);
    },
    stopReporting: () => clearInterval(reporting),
    unacknowledged: () =>
      agents.flatMap(({ agentId, statistics: { outboxItems } }) =>
        outboxItems > 0 ? [`${agentId} has ${outboxItems} reports that are not acknowledged`] : [],
      ),
    story: (name) => {
      const agent = agents.find(({ agentId }) => agentId === name);
      return agent ? [JSON.stringify(agent.statistics), ...(stories.get(name) ?? []).slice(-8)].join('\n') : '';
    },
    async close() {
      clearInterval(reporting);
      isOver = true;
      await Promise.all(agents.map((agent) => agent.close()));
    },
  };
}

const hastyClock: V2Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now() * haste,
  schedule(delayMs, task) {
    const timer = setTimeout(task, delayMs / haste);
    return () => clearTimeout(timer);
  },
};

function numberIn(payload: unknown): number | null {
  const isNumbered = typeof payload === 'object' && payload !== null && 'number' in payload;
  return isNumbered && typeof payload.number === 'number' ? payload.number : null;
}
