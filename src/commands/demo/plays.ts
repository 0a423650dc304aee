import { AgentsDocument, type ConsumerClient } from '../../consumer-client/client.ts';
import type { AlarmLedger } from './alarm-ledger.ts';
import type { DemoAgent } from './demo-agents.ts';
import { alarmKinds, type DemoFleet } from './demo-fleet.ts';
import { broadcastToAll, type Stage, sendCommand, sendToHandoff, sendWhileAway } from './scenes.ts';
import { pause, until } from './until.ts';

const roundEventsPerSecond = 20;
const eventsPerSecond = 3;
const betweenScenesMs = 4_000;

/** Every scene once, and what was seen held against what was sent. Throws an Error that says what was wrong. */
export async function playRound(stage: Stage, ledger: AlarmLedger): Promise<void> {
  const { board, client, fleet, signal, watch } = stage;
  const [away, first, second] = fleet.commandable;
  const unregistered = fleet.commandable.at(-1);
  const [handoff] = fleet.handoff;
  const onV2 = fleet.agents.filter(({ protocol }) => protocol === 'V2');
  const [v2Agent, v2Away] = onV2;
  if (!away || !first || !second || !unregistered || !handoff || !v2Agent || !v2Away)
    throw new Error('the fleet is too small');
  await expectAllConnected(client, fleet, signal);
  const allShown = () => fleet.agents.every(({ agentId }) => watch.presenceOf(agentId).came === 1);
  await until('all agents shown as they came', allShown, { timeoutMs: 3_000, signal });

  const stopReporting = fleet.startReporting(roundEventsPerSecond);
  try {
    await fleet.reportAll();
    await sendCommand(stage, first, 'POLICIES');
    await sendCommand(stage, second, 'PROCESSES');
    await sendCommand(stage, unregistered, 'TESTS');
    await sendCommand(stage, v2Agent, 'ROLLBACKS');
    await sendToHandoff(stage, handoff);
    await broadcastToAll(stage);
    await Promise.all([sendWhileAway(stage, away), sendWhileAway(stage, v2Away)]);
  } finally {
    stopReporting();
  }
  await expectAllSeen(ledger, signal);
  if (watch.problems.length > 0) throw new Error(watch.problems.join('; '));

  const alarms = alarmKinds.map((kind) => `${ledger.matched(kind)} ${kind}`).join(', ');
  board.passed(
    `${fleet.agents.length} agents connected and shown as they came, ${onV2.length} of them over protocol v2`,
  );
  board.passed(`${alarms} seen live, each once and as sent; ${ledger.matchedSealed} of them sealed`);
  board.passed('4 commands delivered at once, and in the journals of their agents');
  board.passed('2 commands waited for agents that were away, and reached them when they were back');
  board.passed('1 command to a handoff agent failed, and said why');
  board.passed(
    `1 broadcast to ${fleet.agents.length} agents: ${fleet.commandable.length} delivered, ${fleet.handoff.length} failed, none open`,
  );
}

/** The scenes in turn, over and over, until the signal aborts; what goes wrong is shown. */
export async function playOn(stage: Stage, ledger: AlarmLedger): Promise<void> {
  const { board, fleet, signal, watch } = stage;
  const stopReporting = fleet.startReporting(eventsPerSecond);
  const scenes: readonly ((round: number) => Promise<void>)[] = [
    (round) => sendCommand(stage, inTurn(fleet.commandable, round * 7), inTurn(channels, round)),
    (round) => sendWhileAway(stage, inTurn(fleet.commandable, round * 5 + 3)),
    (round) => sendToHandoff(stage, inTurn(fleet.handoff, round)),
    () => broadcastToAll(stage),
  ];
  try {
    for (let turn = 0; !signal.aborted; turn++) {
      await pause(betweenScenesMs, signal);
      if (signal.aborted) return;
      await inTurn(
        scenes,
        turn,
      )(Math.floor(turn / scenes.length)).catch((error) => {
        if (!signal.aborted) board.row({ what: 'problem', state: 'WRONG', agentId: '', detail: String(error) });
      });
      const [problem] = [...watch.problems, ...ledger.faults];
      if (problem !== undefined) throw new Error(problem);
    }
  } finally {
    stopReporting();
  }
}

const channels = ['POLICIES', 'PROCESSES', 'TESTS', 'ROLLBACKS'] as const;

function inTurn<Item>(items: readonly Item[], turn: number): Item {
  const item = items[turn % items.length];
  if (item === undefined) throw new Error('nothing to choose from');
  return item;
}

async function expectAllConnected(client: ConsumerClient, fleet: DemoFleet, signal: AbortSignal): Promise<void> {
  const allConnected = async () => {
    const { agents } = await client.query(AgentsDocument, { filter: { connected: true }, first: 100 });
    const protocols = new Map(agents.nodes.map(({ agentId, session }) => [agentId, session?.protocol]));
    const isAsMade = ({ agentId, protocol }: DemoAgent) => protocols.get(agentId) === protocol;
    return agents.totalCount === fleet.agents.length && fleet.agents.every(isAsMade);
  };
  await until('all agents connected', allConnected, { timeoutMs: 5_000, signal });
}

async function expectAllSeen(ledger: AlarmLedger, signal: AbortSignal): Promise<void> {
  await until('every alarm seen that was sent', () => ledger.open === 0, { timeoutMs: 5_000, signal });
  if (ledger.faults.length > 0) throw new Error(ledger.faults.slice(0, 5).join('; '));
  const unseen = alarmKinds.find((kind) => ledger.matched(kind) === 0);
  if (unseen) throw new Error(`no ${unseen} were seen`);
}
