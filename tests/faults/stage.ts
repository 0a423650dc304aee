import { seededRandom } from '../../src/agent-client/seeded-random.ts';
import { AgentsDocument, createConsumerClient, EventCursorDocument } from '../../src/consumer-client/client.ts';
import { type AgentFleet, startAgentFleet } from './agent-fleet.ts';
import { type CommandLoad, startCommandLoad } from './command-load.ts';
import { type DatabaseWatch, watchDatabase } from './database-watch.ts';
import { consumeAnomalies, consumeEverything, consumeServerSentEvents, type EventConsumer } from './event-consumers.ts';
import { wantedBy } from './event-invariants.ts';
import type { GatewayProcess } from './gateway-process.ts';
import type { History, Stored } from './history.ts';
import { type MessageWatch, watchMessages } from './message-watch.ts';
import { untilNone } from './until-none.ts';

/** A gateway under load from all sides, with everyone keeping a journal. */
export interface FaultStage {
  readonly fleet: AgentFleet;
  readonly load: CommandLoad;
  readonly consumers: readonly EventConsumer[];
  /** What everyone has seen by now. */
  history(): Promise<History>;
  /**
   * Begins to look for everyone: what it gives tells, as sentences, which agents the gateway has not yet shown as connected to
   * the process that runs now.
   */
  lookForAll(): () => Promise<readonly string[]>;
  /** What is still to be shown to some subscriber, as sentences; none: they have caught up. */
  behind(stored: Stored): readonly string[];
  stop(): Promise<void>;
}

/** Begins the load on a gateway that is ready. */
export async function startFaultStage(options: {
  readonly seed: number;
  readonly gateway: GatewayProcess;
  readonly databaseUrl: string;
}): Promise<FaultStage> {
  const { seed } = options;
  const { gateway } = options;
  const { url, agentUrl, token } = gateway;
  const client = createConsumerClient({ url, token });
  // One for each, so that none of them disturbs what the others do.
  const random = (part: number) => seededRandom(seed * 10 + part);
  const { eventCursor: from } = await client.query(EventCursorDocument);
  const consumers = [consumeEverything, consumeAnomalies, consumeServerSentEvents].map((consume) =>
    consume({ url, token, from }),
  );
  const database: DatabaseWatch = watchDatabase(options.databaseUrl);
  const fleet = startAgentFleet({
    agentUrl,
    counts: { calm: 8, flapping: 3, handoff: 1 },
    reportsPerSecond: 100,
    stallsPerSecond: 2,
    random: random(1),
  });
  await untilNone(lookForAll(), 20_000);
  const load = startCommandLoad({ url, token, agents: fleet.commandable, callers: 8, random: random(2) });
  const watch: MessageWatch = watchMessages({
    ...{ url, token },
    agents: fleet.commandable,
    known: () => load.sends.flatMap(({ answers }) => answers[0]?.messageId ?? []),
    random: random(3),
  });

  function lookForAll(): () => Promise<readonly string[]> {
    const missing = new Set(fleet.names);
    return async () => {
      const { agents } = await client.query(AgentsDocument, {
        filter: { agentIds: fleet.names },
        first: fleet.names.length,
      });
      for (const { agentId, connected, session } of agents.nodes)
        if (connected && session?.gatewayInstance === gateway.instanceId) missing.delete(agentId);
      return [...missing].map((name) => `${name} is not connected to ${gateway.instanceId}`);
    };
  }

  return {
    fleet,
    load,
    consumers,
    async history() {
      // What is promised is noted before the database is asked, what it must be covered by after.
      const told = {
        sends: load.sends.map((send) => ({ ...send, answers: [...send.answers] })),
        broadcasts: load.broadcasts.map(({ key, answers }) => ({ key, answers: [...answers] })),
        cancelled: [...load.cancelled],
        statuses: [...watch.statuses],
        streams: consumers.map(({ seen }) => ({ ...seen, events: [...seen.events], faults: [...seen.faults] })),
      };
      const stored = await database.read();
      return {
        ...told,
        stored,
        reads: fleet.reads,
        reports: fleet.reports,
        refusals: fleet.refusals,
        owners: [...database.owners],
      };
    },
    lookForAll,
    behind: (stored) =>
      consumers.flatMap(({ seen }) => {
        const last = wantedBy(seen, stored.events).at(-1);
        const isThere = last === undefined || seen.events.some(({ cursor }) => cursor === last.cursor);
        return isThere ? [] : [`${seen.name} was shown ${seen.events.length} events and not yet ${last.position}`];
      }),
    async stop() {
      fleet.close();
      await Promise.all([
        load.abandon(),
        watch.stop(),
        client.close(),
        database.stop(),
        ...consumers.map((consumer) => consumer.stop()),
      ]);
    },
  };
}
