import { isDeepStrictEqual } from 'node:util';
import {
  BroadcastDocument,
  type CommandChannel,
  type ConsumerClient,
  MessageDocument,
  type MessageFactsFragment,
  SendBroadcastDocument,
  SendMessageDocument,
} from '../../consumer-client/client.ts';
import type { Board } from './board.ts';
import type { DemoAgent } from './demo-agents.ts';
import type { DemoFleet } from './demo-fleet.ts';
import { until } from './until.ts';
import type { Watch } from './watch.ts';

/** What the scenes play on. Each scene throws an Error that says what was not as it should be. */
export interface Stage {
  readonly client: ConsumerClient;
  readonly fleet: DemoFleet;
  readonly watch: Watch;
  readonly board: Board;
  readonly signal: AbortSignal;
  /** Tells one scene's commands from another's. */
  readonly nextTicket: () => string;
}

const deliveryTimeoutMs = 5_000;
const returnTimeoutMs = 8_000;

/** A command reaches its agent, and is delivered only when the agent has read it. */
export async function sendCommand(stage: Stage, agent: DemoAgent, channel: CommandChannel): Promise<void> {
  const payload = { op: 'apply', policy: 'baseline', ticket: stage.nextTicket() };
  stage.watch.followMessages(agent.agentId);
  const { id } = await send(stage, agent, channel, payload);
  await settled(stage, id, 'DELIVERED');
  expectRead(agent, payload);
}

/** A command to an agent that is away waits for it. */
export async function sendWhileAway(stage: Stage, agent: DemoAgent): Promise<void> {
  const { board, client, signal, watch } = stage;
  const payload = { op: 'collect', what: 'open_sockets', ticket: stage.nextTicket() };
  watch.followMessages(agent.agentId);
  const { came, went } = watch.presenceOf(agent.agentId);
  agent.drop();
  const isGone = () => watch.presenceOf(agent.agentId).went === went + 1;
  await until(`${agent.agentId} shown as it went`, isGone, { timeoutMs: 5_000, signal });
  const { id } = await send(stage, agent, 'INVESTIGATIONS', payload);
  const { message } = await client.query(MessageDocument, { id });
  if (message?.status !== 'QUEUED') throw new Error(`a command to an agent that is away is ${message?.status}`);
  const isBack = () => watch.presenceOf(agent.agentId).came === came + 1;
  await until(`${agent.agentId} shown as it came back`, isBack, { timeoutMs: returnTimeoutMs, signal });
  await settled(stage, id, 'DELIVERED');
  expectRead(agent, payload);
  board.note('  … it waited for the agent, and reached it when it came back');
}

/** Nothing can be sealed for a handoff agent: its command fails at once and says why. */
export async function sendToHandoff(stage: Stage, agent: DemoAgent): Promise<void> {
  const payload = { op: 'apply', policy: 'baseline', ticket: stage.nextTicket() };
  const message = await send(stage, agent, 'POLICIES', payload);
  stage.board.row({ what: 'command', state: message.status, agentId: agent.agentId, detail: message.failure ?? '' });
  if (message.status !== 'FAILED' || !message.failure?.includes('handoff'))
    throw new Error(`a command to a handoff agent is ${message.status}, failure: ${message.failure}`);
}

/** A broadcast reaches every agent that can take it, once, and its progress adds up. */
export async function broadcastToAll(stage: Stage): Promise<void> {
  const { board, client, fleet, signal } = stage;
  const payload = { op: 'rescan', reason: 'new indicators', ticket: stage.nextTicket() };
  const sent = await client.mutate(SendBroadcastDocument, { input: { channel: 'THREATS', payload } });
  const { id } = sent.broadcast.broadcast;
  const done = async () => {
    const { broadcast } = await client.query(BroadcastDocument, { id });
    return broadcast && broadcast.progress.queued + broadcast.progress.sent === 0 ? broadcast.progress : null;
  };
  const progress = await until('a broadcast that is done', done, { timeoutMs: deliveryTimeoutMs, signal });
  const { targets, delivered, failed, expired, cancelled } = progress;
  board.row({
    what: 'broadcast',
    state: 'DONE',
    agentId: `${targets} agents`,
    detail: `${delivered} delivered, ${failed} failed (they cannot take commands) · threats ${JSON.stringify(payload)}`,
  });
  const wanted = { targets: fleet.agents.length, delivered: fleet.commandable.length, failed: fleet.handoff.length };
  if (!isDeepStrictEqual({ targets, delivered, failed }, wanted) || expired + cancelled > 0)
    throw new Error(`the progress of a broadcast is ${JSON.stringify(progress)}`);
  for (const agent of fleet.commandable) expectRead(agent, payload);
}

async function send(
  { client }: Stage,
  agent: DemoAgent,
  channel: CommandChannel,
  payload: unknown,
): Promise<MessageFactsFragment> {
  const { sendMessage } = await client.mutate(SendMessageDocument, {
    input: { agentId: agent.agentId, channel, payload },
  });
  return sendMessage.message;
}

async function settled({ client, signal }: Stage, id: string, status: MessageFactsFragment['status']): Promise<void> {
  const isFinal = async () => {
    const { message } = await client.query(MessageDocument, { id });
    return message && message.status !== 'QUEUED' && message.status !== 'SENT' ? message : null;
  };
  const message = await until('a command that is settled', isFinal, { timeoutMs: deliveryTimeoutMs, signal });
  if (message.status !== status) throw new Error(`a command is ${message.status}: ${message.failure}`);
}

/** The agent's own journal is the witness. */
function expectRead(agent: DemoAgent, payload: unknown): void {
  const times = agent.commands.filter((read) => isDeepStrictEqual(read, payload)).length;
  if (times !== 1) throw new Error(`${agent.agentId} read a command ${times} times that is shown as delivered`);
}
