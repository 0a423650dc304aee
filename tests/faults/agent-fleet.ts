import { createConnection, type Socket } from 'node:net';
import {
  type AgentFailureCode,
  type Habits,
  startV1Agent,
  type Timings,
  type V1Agent,
} from '../../src/agent-client/index.ts';
import type { SeededRandom } from '../../src/agent-client/seeded-random.ts';
import { nativeCrypto } from '../../src/agent-gateway/crypto/native.ts';
import type { EventKind } from '../../src/agent-gateway/wire/channels.ts';
import { type CommandRead, preciseNowMs, type Report } from './history.ts';

/**
 * Deployed agents in all but patience: they dial again within half a second instead of seven, and go on where a deployed one
 * would be stranded, so that a fault takes seconds. They report numbered events, and after each reconnect once more the last ones
 * of before.
 */
export interface AgentFleet {
  readonly names: readonly string[];
  /** Names of those that commands can be sealed for. */
  readonly commandable: readonly string[];
  readonly reads: readonly CommandRead[];
  readonly reports: readonly Report[];
  /** Handshakes that came to nothing although the gateway had answered, as sentences. */
  readonly refusals: readonly string[];
  /** Frames of reports that were written once more. */
  readonly repeated: number;
  /** Agents without a connection to speak over. */
  readonly away: readonly string[];
  /** Ends an agent's process without a word. */
  kill(name: string): void;
  /** Starts the process of an agent that was killed; it has the key and the uid of before. */
  revive(name: string): void;
  /** From now on they only read. */
  stopReporting(): void;
  close(): void;
}

/** `flapping` agents replace connections that were fine once they have been dropped; `handoff` speak that dialect. */
const manners = ['calm', 'flapping', 'handoff'] as const;
type Manner = (typeof manners)[number];

interface Member {
  readonly name: string;
  readonly manner: Manner;
  agent: V1Agent;
  /** Its journal and that of its earlier processes. */
  readonly earlierReads: CommandRead[];
  /** Links of earlier processes. */
  earlierLinks: number;
  number: number;
  lastLink: number;
  /** The frames last written. */
  readonly lastFrames: { readonly text: string; readonly written: { isRepeated: boolean } }[];
}

const quickTimings: Partial<Timings> = {
  dialTimeoutMs: 10_000,
  answerTimeoutMs: 10_000,
  heartbeatIntervalMs: 3_000,
  readDeadlineMs: 9_000,
  redialDelayMs: 400,
  flapMinMs: 1_000,
  flapMaxMs: 3_000,
  abandonedLingerMs: 2_000,
};

const habits: Readonly<Record<Manner, Partial<Habits>>> = {
  calm: { reconnects: 'for-ever' },
  flapping: { reconnects: 'for-ever', flaps: 'after-drop', channelForm: 'mixed' },
  handoff: { reconnects: 'for-ever', flaps: 'always', overlaps: false, channelForm: 'long' },
};

const kinds: readonly [EventKind, ...EventKind[]] = ['anomalies', 'threats', 'processes', 'logs', 'status'];
const tickMs = 25;
const maxStallMs = 500;
const repeatedFrames = 5;
const answeredFailures: ReadonlySet<AgentFailureCode> = new Set(['AUTH_REFUSED', 'ANSWER_BROKEN', 'CRASHED']);
/** More than any run has. */
const journalLimit = 1_000_000;

export function startAgentFleet(options: {
  readonly agentUrl: string;
  readonly counts: Readonly<Record<Manner, number>>;
  /** Of all agents together. */
  readonly reportsPerSecond: number;
  /** Connections that stand still for a moment and then break without a word, of all agents together. */
  readonly stallsPerSecond: number;
  readonly random: SeededRandom;
}): AgentFleet {
  const { agentUrl, random } = options;
  const reports: Report[] = [];
  /** Each agent's newest one. */
  const sockets = new Map<string, Socket>();
  let repeated = 0;
  const members = manners.flatMap((manner) =>
    Array.from({ length: options.counts[manner] }, (_, index) => startMember(`${manner}-${index + 1}.example`, manner)),
  );
  const byName = new Map(members.map((member) => [member.name, member]));

  function startMember(name: string, manner: Manner): Member {
    const agent = startAgent(name, manner);
    return { name, manner, agent, earlierReads: [], earlierLinks: 0, number: 0, lastLink: 0, lastFrames: [] };
  }

  function startAgent(name: string, manner: Manner, from?: V1Agent): V1Agent {
    return startV1Agent({
      url: agentUrl,
      agentId: name,
      dialect: manner === 'handoff' ? 'handoff' : 'enveloped',
      suite: nativeCrypto,
      habits: habits[manner],
      timings: quickTimings,
      journalLimit,
      socket: {
        createConnection() {
          const { hostname, port } = new URL(agentUrl);
          const socket = createConnection({ host: hostname, port: Number(port) });
          sockets.set(name, socket);
          return socket;
        },
      },
      ...(from ? { seed: from.seed } : {}),
      ...(from?.uid && from.bootstrapToken
        ? { registration: { uid: from.uid, bootstrapToken: from.bootstrapToken } }
        : {}),
    });
  }

  function member(name: string): Member {
    const found = byName.get(name);
    if (!found) throw new Error(`there is no agent ${name}`);
    return found;
  }

  async function report(member: Member): Promise<void> {
    const { agent, name, manner, lastFrames } = member;
    const kind = random.pick(kinds);
    const number = ++member.number;
    const messageId = `${name}-${number}`;
    const link = member.earlierLinks + currentLink(agent);
    const told = manner === 'handoff' ? null : number;
    const written = {
      agent: name,
      messageId,
      kind,
      link,
      number: told,
      writtenAtMs: preciseNowMs(),
      isRepeated: false,
    };
    reports.push(written);
    const { text } = await agent.sendEvent(kind, { number, type: 'crash suite', severity: 'low' }, { id: messageId });
    lastFrames.push({ text, written });
    if (lastFrames.length > repeatedFrames) lastFrames.shift();
  }

  /** As agents do that cannot know whether their last words were heard. */
  async function repeatLast(member: Member): Promise<void> {
    for (const { text, written } of [...member.lastFrames]) {
      written.isRepeated = true;
      await member.agent.sendRaw(text);
      repeated++;
    }
  }

  /** What is written to it meanwhile is never read. */
  function stall({ agent, name }: Member): void {
    // Pausing would not do: ws reads what was buffered when the socket is destroyed.
    sockets.get(name)?.removeAllListeners('data');
    setTimeout(() => agent.drop(), random.integer(50, maxStallMs));
  }

  /** How likely an agent is to do in one tick what all of them do so often in a second. */
  const share = (perSecond: number) => (perSecond * tickMs) / 1_000 / members.length;

  function tick(): void {
    for (const member of members) {
      if (member.agent.state !== 'ready') continue;
      const link = currentLink(member.agent);
      const isBack = link !== member.lastLink;
      member.lastLink = link;
      // What a dying connection does not take any more is what v1 agents lose.
      if (isBack) repeatLast(member).catch(() => {});
      else if (random.chance(share(options.stallsPerSecond))) stall(member);
      else if (random.chance(share(options.reportsPerSecond))) report(member).catch(() => {});
    }
  }

  let reporting: NodeJS.Timeout | null = setInterval(tick, tickMs);
  function stopReporting(): void {
    if (reporting) clearInterval(reporting);
    reporting = null;
  }

  return {
    names: members.map(({ name }) => name),
    commandable: members.filter(({ manner }) => manner !== 'handoff').map(({ name }) => name),
    get reads() {
      return members.flatMap((each) => [...each.earlierReads, ...readsOf(each)]);
    },
    reports,
    get refusals() {
      return members.flatMap(({ name, agent }) =>
        agent.events.entries.flatMap((event) =>
          event.type === 'failed' && answeredFailures.has(event.failure.code)
            ? [`${name}: ${event.failure.message}`]
            : [],
        ),
      );
    },
    get repeated() {
      return repeated;
    },
    get away() {
      return members.filter(({ agent }) => agent.state !== 'ready').map(({ name }) => name);
    },
    kill(name) {
      const { agent, earlierReads } = member(name);
      agent.terminate();
      earlierReads.push(...readsOf(member(name)));
    },
    revive(name) {
      const revived = member(name);
      revived.earlierLinks += revived.agent.linkCount;
      revived.lastLink = 0;
      revived.agent = startAgent(name, revived.manner, revived.agent);
    },
    stopReporting,
    close() {
      stopReporting();
      for (const { agent } of members) agent.terminate();
    },
  };
}

function readsOf({ name, agent, earlierLinks }: Member): CommandRead[] {
  return agent.commands.entries.map(({ id, link, receivedAtMs }) => ({
    agent: name,
    messageId: id,
    link: earlierLinks + link,
    readAtMs: receivedAtMs,
  }));
}

/** The connection that it speaks over. */
function currentLink(agent: V1Agent): number {
  return agent.events.entries.findLast((event) => event.type === 'ready')?.link ?? 0;
}
