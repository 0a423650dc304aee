import { setTimeout as pause } from 'node:timers/promises';
import type { SeededRandom } from '../../src/agent-client/seeded-random.ts';
import {
  createConsumerClient,
  MessageDocument,
  MessageUpdatesDocument,
  type MessageStatus as ShownStatus,
} from '../../src/consumer-client/client.ts';
import type { MessageStatus } from '../../src/messages/message.ts';
import { idOf } from '../../src/schema/node-ids.ts';
import { preciseNowMs, type StatusSeen } from './history.ts';

/** Follows what becomes of messages: by `messageUpdates` of each agent, and by asking for some of them again and again. */
export interface MessageWatch {
  readonly statuses: readonly StatusSeen[];
  stop(): Promise<void>;
}

const statusOf: Readonly<Record<ShownStatus, MessageStatus>> = {
  QUEUED: 'pending',
  SENT: 'sent',
  DELIVERED: 'delivered',
  FAILED: 'failed',
  EXPIRED: 'expired',
  CANCELLED: 'cancelled',
};
const betweenQuestionsMs = 20;
const retryDelayMs = 100;

export function watchMessages(options: {
  readonly url: string;
  readonly token: string;
  readonly agents: readonly string[];
  /** Ids of messages to ask for. */
  readonly known: () => readonly string[];
  readonly random: SeededRandom;
}): MessageWatch {
  const { agents, known, random } = options;
  // The gateway beats every 12 s.
  const client = createConsumerClient({ ...options, silenceMs: 15_000 });
  const statuses: StatusSeen[] = [];
  let isStopped = false;

  function note(message: { id: string; status: ShownStatus }, source: string, askedAtMs: number): void {
    const messageId = idOf('Message', message.id) ?? message.id;
    statuses.push({ messageId, status: statusOf[message.status], source, askedAtMs, toldAtMs: preciseNowMs() });
  }

  async function untilStopped(work: (round: number) => Promise<void>, delayMs: number): Promise<void> {
    for (let round = 1; !isStopped; round++) {
      // The gateway is away, or the database is.
      await work(round).catch(() => pause(retryDelayMs));
      await pause(delayMs);
    }
  }

  async function follow(agentId: string, round: number): Promise<void> {
    const askedAtMs = preciseNowMs();
    for await (const { messageUpdates } of client.subscribe(MessageUpdatesDocument, { agentId }))
      note(messageUpdates, `updates of ${agentId}, connection ${round}`, askedAtMs);
  }

  /** Mostly of late, as those are on their way. */
  async function ask(): Promise<void> {
    const ids = known();
    const id = ids[random.integer(random.chance(0.7) ? Math.max(0, ids.length - 200) : 0, ids.length - 1)];
    if (id === undefined) return;
    const askedAtMs = preciseNowMs();
    const { message } = await client.query(MessageDocument, { id });
    if (message) note(message, 'query', askedAtMs);
  }

  const work = [
    ...agents.map((agentId) => untilStopped((round) => follow(agentId, round), retryDelayMs)),
    untilStopped(ask, betweenQuestionsMs),
  ];
  return {
    statuses,
    async stop() {
      isStopped = true;
      await client.close();
      await Promise.all(work);
    },
  };
}
