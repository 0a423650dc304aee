import { seededRandom } from '../../src/agent-client/seeded-random.ts';
import { AgentsDocument, createConsumerClient, EventCursorDocument } from '../../src/consumer-client/client.ts';
import { type AgentFleet, startAgentFleet } from './agent-fleet.ts';
import { type CommandLoad, startCommandLoad } from './command-load.ts';
import { type DatabaseWatch, watchDatabase } from './database-watch.ts';
import { consumeAnomalies, consumeEverything, consumeServerSentEvents, type EventConsumer } from './event-consumers.ts';
import { wantedBy } from './event-invariants.ts';
import type { GatewayProcess } from './gateway-process.ts';
import { type History, type Hold, preciseNowMs, type Stored, type StreamSeen } from './history.ts';
import { watchLag } from './lag-watch.ts';
import { type MessageWatch, watchMessages } from './message-watch.ts';
import { untilNone } from './until-none.ts';
import { startV2Fleet, type V2Fleet } from './v2-fleet.ts';

/** Gateways under load from all sides, with everyone keeping a journal. */
export interface FaultStage {
  readonly fleet: AgentFleet;
  readonly v2Fleet: V2Fleet;
  readonly load: CommandLoad;
  readonly consumers: readonly EventConsumer[];
  /** What everyone has seen by now. */
  history(): Promise<History>;
  /**
   * Begins to look for everyone: what it gives tells, as sentences, which agents the gateways have not yet shown as connected to
   * a process that runs now.
   */
  lookForAll(): () => Promise<readonly string[]>;
  /**
   * Begins to look for what happens from now on: what it gives tells, as sentences, whose new events have not been shown, and who
   * has read no command.
   */
  lookForNews(): () => readonly string[];
  /** What is still to be shown to some subscriber, by now or by then, as sentences; none: they have caught up. */
  behind(stored: Stored, streams?: readonly StreamSeen[]): readonly string[];
  /** Agents report nothing more, and callers ask for nothing more; resolves once these have their answers. */
  quieten(): Promise<void>;
  stop(): Promise<void>;
}

/** Begins the load on gateways that are ready. */
export async function startFaultStage(options: {
  readonly seed: number;
  /** Where consumers find some gateway that lives. */
  readonly url: string;
  /** Where agents do. */
  readonly agentUrl: string;
  readonly token: string;
  /** Those that should be serving at this moment. */
  readonly serving: () => readonly GatewayProcess[];
  readonly databaseUrl: string;
  /** When what is on its way to agents was held; none where absent. */
  readonly holds?: () => readonly Hold[];
  /** Agents of v2 beside twelve of v1. */
  readonly v2Agents: number;
}): Promise<FaultStage> {
  const { seed, url, agentUrl, token, serving } = options;
  const client = createConsumerClient({ url, token });
  // One for each, so that none of them disturbs what the others do.
  const random = (part: number) => seededRandom(seed * 10 + part);
  const { eventCursor: from } = await client.query(EventCursorDocument);
  const consumers = [consumeEverything, consumeAnomalies, consumeServerSentEvents].map((consume) =>
    consume({ url, token, from }),
  );
  const lag = watchLag();
  const database: DatabaseWatch = watchDatabase(options.databaseUrl);
  const fleet = startAgentFleet({
    agentUrl,
    counts: { calm: 8, flapping: 3, handoff: 1 },
    reportsPerSecond: 100,
    stallsPerSecond: 2,
    random: random(1),
  });
  const v2Fleet = await startV2Fleet({ agentUrl, count: options.v2Agents, reportsPerSecond: 20, random: random(4) });
  const names = [...fleet.names, ...v2Fleet.names];
  const commandable = [...fleet.commandable, ...v2Fleet.names];
  await untilNone(lookForAll(), 20_000);
  const load = startCommandLoad({ url, token, agents: commandable, callers: 8, random: random(2) });
  const watch: MessageWatch = watchMessages({
    ...{ url, token },
    agents: commandable,
    known: () => load.sends.flatMap(({ answers }) => answers[0]?.messageId ?? []),
    random: random(3),
  });

  function lookForAll(): () => Promise<readonly string[]> {
    const missing = new Set(names);
    return async () => {
      const { agents } = await client.query(AgentsDocument, {
        filter: { agentIds: names },
        first: names.length,
      });
      const instances = new Set(serving().map(({ instanceId }) => instanceId));
      for (const { agentId, connected, session } of agents.nodes)
        if (connected && instances.has(session?.gatewayInstance ?? '')) missing.delete(agentId);
      return [...missing].map((name) => `${name} is not connected to ${[...instances].join(' or ')}`);
    };
  }

  function lookForNews(): () => readonly string[] {
    const sinceMs = preciseNowMs();
    const unheard = new Set(commandable);
    const unshown = consumers
      .filter(({ seen }) => seen.kinds === null)
      .map(({ seen }) => ({ seen, next: seen.events.length, agents: new Set(names) }));
    return () => {
      const reports = [...fleet.reports, ...v2Fleet.reports].filter(({ writtenAtMs }) => writtenAtMs > sinceMs);
      const newIds = new Set(reports.map(({ messageId }) => messageId));
      for (const stream of unshown) {
        const shown = stream.seen.events.slice(stream.next);
        stream.next += shown.length;
        for (const { agent, messageId } of shown) if (newIds.has(messageId)) stream.agents.delete(agent);
      }
      for (const { agent, readAtMs } of [...fleet.reads, ...v2Fleet.reads])
        if (readAtMs > sinceMs) unheard.delete(agent);
      return [
        ...unshown.flatMap(({ seen, agents }) => [...agents].map((agent) => `${seen.name} saw nothing of ${agent}`)),
        ...[...unheard].map((agent) => `${agent} read nothing ${v2Fleet.story(agent)}`.trim()),
      ];
    };
  }

  return {
    fleet,
    v2Fleet,
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
        acknowledged: [...v2Fleet.acknowledged],
        holds: [...(options.holds?.() ?? []), ...lag.holds],
      };
      const stored = await database.read();
      return {
        ...told,
        stored,
        reads: [...fleet.reads, ...v2Fleet.reads],
        applied: [...v2Fleet.applied],
        reports: [...fleet.reports, ...v2Fleet.reports],
        refusals: [...fleet.refusals, ...v2Fleet.refusals],
        owners: [...database.owners],
      };
    },
    lookForAll,
    lookForNews,
    behind: (stored, streams = consumers.map(({ seen }) => seen)) =>
      streams.flatMap((seen) => {
        const last = wantedBy(seen, stored.events).at(-1);
        const isThere = last === undefined || seen.events.some(({ cursor }) => cursor === last.cursor);
        return isThere ? [] : [`${seen.name} was shown ${seen.events.length} events and not yet ${last.position}`];
      }),
    async quieten() {
      fleet.stopReporting();
      v2Fleet.stopReporting();
      await load.finish();
    },
    async stop() {
      lag.stop();
      fleet.close();
      await Promise.all([
        v2Fleet.close(),
        load.abandon(),
        watch.stop(),
        client.close(),
        database.stop(),
        ...consumers.map((consumer) => consumer.stop()),
      ]);
    },
  };
}
