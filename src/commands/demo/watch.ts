import {
  AnomaliesDocument,
  type ConsumerClient,
  MessageUpdatesDocument,
  type MessageUpdatesSubscription,
  PresenceDocument,
  ProcessesDocument,
  ThreatsDocument,
} from '../../consumer-client/client.ts';
import type { SeenAlarm } from './alarm-ledger.ts';
import type { Board } from './board.ts';

/** What a console watches: every alarm, and who comes and goes, over one socket. */
export interface Watch {
  /** How often an agent was shown to come, and to go. */
  presenceOf(agentId: string): { readonly came: number; readonly went: number };
  /** Shows every change of status of this agent's messages as well. */
  followMessages(agentId: string): void;
  /** Subscriptions that ended, each with its reason. */
  readonly problems: readonly string[];
  /** Ends all of it; resolves when every loop has ended. */
  close(): Promise<void>;
}

export function startWatch(client: ConsumerClient, board: Board, onAlarm: (alarm: SeenAlarm) => void): Watch {
  const presence = new Map<string, { came: number; went: number }>();
  const problems: string[] = [];
  const followed = new Set<string>();
  const ended: Promise<void>[] = [];
  let isClosing = false;

  function each<Result>(what: string, results: AsyncIterable<Result>, show: (result: Result) => void): void {
    const loop = async () => {
      try {
        for await (const result of results) show(result);
        if (!isClosing) problems.push(`the subscription to ${what} ended`);
      } catch (error) {
        if (!isClosing) problems.push(`the subscription to ${what} ended: ${error}`);
      }
    };
    ended.push(loop());
  }

  function presenceOf(agentId: string): { readonly came: number; readonly went: number } {
    return presence.get(agentId) ?? { came: 0, went: 0 };
  }

  function take(alarm: SeenAlarm): void {
    onAlarm(alarm);
    board.row(alarmRow(alarm));
  }

  // First, so that it runs when the others are known to run (`eventSubscriptions` counts those).
  each('presence', client.subscribe(PresenceDocument), ({ presence: { agent, connected, reason } }) => {
    const { came, went } = presenceOf(agent.agentId);
    presence.set(agent.agentId, connected ? { came: came + 1, went } : { came, went: went + 1 });
    const state = connected ? 'ONLINE' : 'OFFLINE';
    board.row({ what: 'presence', state, agentId: agent.agentId, detail: reason ?? sessionText(agent) });
  });
  each('anomalies', client.subscribe(AnomaliesDocument), ({ anomalies }) =>
    take({ kindSeen: 'anomalies', ...anomalies }),
  );
  each('threats', client.subscribe(ThreatsDocument), ({ threats }) => take({ kindSeen: 'threats', ...threats }));
  each('processes', client.subscribe(ProcessesDocument), ({ processes }) =>
    take({ kindSeen: 'processes', ...processes }),
  );

  return {
    presenceOf,
    problems,
    followMessages(agentId) {
      if (followed.has(agentId)) return;
      followed.add(agentId);
      each(`the messages of ${agentId}`, client.subscribe(MessageUpdatesDocument, { agentId }), ({ messageUpdates }) =>
        board.row({
          what: 'command',
          state: messageUpdates.status,
          agentId: messageUpdates.agentId,
          detail: messageText(messageUpdates),
        }),
      );
    },
    async close() {
      isClosing = true;
      await client.close();
      await Promise.all(ended);
    },
  };
}

/** How many of a watch's subscriptions the gateway counts as subscriptions to events. */
export const eventSubscriptions = 3;

function alarmRow(alarm: SeenAlarm): Parameters<Board['row']>[0] {
  const { agentId, sealed } = alarm;
  const state = sealed ? 'SEALED' : 'severity' in alarm ? alarm.severity : '';
  const told = sealed ? 'only the agent can read it' : alarmText(alarm);
  return { what: whatOf[alarm.kindSeen], state, agentId, detail: told };
}

const whatOf = { anomalies: 'anomaly', threats: 'threat', processes: 'process' } as const;

function alarmText(alarm: SeenAlarm): string {
  switch (alarm.kindSeen) {
    case 'anomalies':
      return `${alarm.type}: ${alarm.message}`;
    case 'threats': {
      const indicators = alarm.indicators.map(({ type, value }) => `${type} ${shortened(value ?? '')}`).join(', ');
      return `${alarm.type}: ${alarm.description} · ${alarm.response} · ${indicators}`;
    }
    case 'processes':
      return `${alarm.action} ${alarm.path} · pid ${alarm.pid} · ${alarm.user}`;
  }
}

/** Hashes are recognised by their beginning. */
function shortened(value: string): string {
  return /^[0-9a-f]{64}$/.test(value) ? `${value.slice(0, 12)}…` : value;
}

function messageText(message: MessageUpdatesSubscription['messageUpdates']): string {
  const { channel, createdAt, deliveredAt, failure, payload } = message;
  const kind = channel.slice(channel.lastIndexOf('.') + 1);
  if (failure !== null) return `${kind} · ${failure}`;
  const took = deliveredAt === null ? '' : ` · after ${Date.parse(deliveredAt) - Date.parse(createdAt)} ms`;
  return `${kind}${took} · ${JSON.stringify(payload)}`;
}

function sessionText(agent: {
  readonly dialect: string | null;
  readonly session: { protocol: string } | null;
}): string {
  return [agent.session?.protocol.toLowerCase(), agent.dialect?.toLowerCase()].filter(Boolean).join(' · ');
}
