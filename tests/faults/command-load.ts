import { setTimeout as pause } from 'node:timers/promises';
import { z } from 'zod';
import type { SeededRandom } from '../../src/agent-client/seeded-random.ts';
import {
  CancelMessageDocument,
  type ConsumerClient,
  ConsumerError,
  createConsumerClient,
  SendBroadcastDocument,
  SendMessageDocument,
} from '../../src/consumer-client/client.ts';
import type { MessagePriority } from '../../src/messages/message.ts';
import { idOf } from '../../src/schema/node-ids.ts';
import { type BroadcastSend, preciseNowMs, type Send } from './history.ts';

/** Callers that send messages for as long as they may, and ask again, with the same key, where an answer was lost. */
export interface CommandLoad {
  readonly sends: readonly Send[];
  readonly broadcasts: readonly BroadcastSend[];
  /** Ids of messages whose cancellation was confirmed. */
  readonly cancelled: readonly string[];
  /** Requests whose answer never came, or told of a fault of the gateway's. */
  readonly lostAnswers: number;
  /** Answers that no caller should ever see. */
  readonly surprises: readonly string[];
  /** Begins nothing more; resolves when everything that was begun has an answer. */
  finish(): Promise<void>;
  /** Ends at once, answered or not. */
  abandon(): Promise<void>;
}

interface Draft {
  readonly key: string;
  readonly agent: string;
  readonly via: 'graphql' | 'rest';
  readonly priority: MessagePriority;
  readonly ttlSeconds: number;
  readonly maxRetries: number;
}

interface Wanted extends Send {
  readonly draft: Draft;
  readonly answers: { messageId: string; answeredAtMs: number }[];
}

const answerTimeoutMs = 4_000;
const retryDelayMs = 150;
const priorityNames = { low: 'LOW', normal: 'NORMAL', high: 'HIGH', urgent: 'URGENT' } as const;
const sent = z.object({ message_id: z.string() });
const problem = z.object({ code: z.string() });
/** Faults of the gateway: nobody knows whether the message was accepted. */
const lossCodes: ReadonlySet<string> = new Set(['UNAVAILABLE', 'INTERNAL_SERVER_ERROR']);

export function startCommandLoad(options: {
  readonly url: string;
  readonly token: string;
  readonly agents: readonly string[];
  /** Callers at work at once, beside one that broadcasts. */
  readonly callers: number;
  readonly random: SeededRandom;
}): CommandLoad {
  const { url, token, agents, random } = options;
  const client = createConsumerClient({ url, token });
  const wanted: Wanted[] = [];
  const broadcasts: BroadcastSend[] = [];
  const cancelled: string[] = [];
  const surprises: string[] = [];
  let lostAnswers = 0;
  let isOver = false;
  let isAbandoned = false;

  function newDraft(): Draft {
    const [first = '', ...others] = agents;
    const via = random.chance(0.3) ? 'rest' : 'graphql';
    return {
      key: `key-${wanted.length}-${random.hex(8)}`,
      agent: random.pick([first, ...others]),
      via,
      // REST has neither; the gateway's own settings stand for the rest.
      priority:
        via === 'rest'
          ? 'normal'
          : random.pickWeighted([
              ['normal', 5],
              ['low', 1],
              ['high', 1],
              ['urgent', 1],
            ]),
      ttlSeconds: random.integer(2, 15),
      maxRetries: random.integer(0, 6),
    };
  }

  /** Asks until there is an answer; null where it is none that can be used, or nobody waits for it any more. */
  async function untilAnswered<Answer>(key: string, ask: () => Promise<Answer>): Promise<Answer | null> {
    while (!isAbandoned) {
      try {
        return await within(answerTimeoutMs, ask());
      } catch (error) {
        if (error instanceof ConsumerError && !lossCodes.has(error.code)) {
          surprises.push(`${key} was answered with ${error.code}: ${error.message}`);
          return null;
        }
        lostAnswers++;
        await pause(retryDelayMs);
      }
    }
    return null;
  }

  async function accept({ key, draft, answers }: Wanted): Promise<string | null> {
    const messageId = await untilAnswered(key, () => ask(client, { url, token }, draft));
    if (messageId !== null) answers.push({ messageId, answeredAtMs: preciseNowMs() });
    return messageId;
  }

  async function broadcast(): Promise<void> {
    while (!isOver) {
      const key = `broadcast-${broadcasts.length}-${random.hex(8)}`;
      const answers: { broadcastId: string; targets: number }[] = [];
      broadcasts.push({ key, answers });
      const input = { channel: 'TESTS', payload: { key }, ttl: 10, idempotencyKey: key } as const;
      for (let times = random.integer(1, 2); times > 0; times--) {
        const answer = await untilAnswered(key, () => client.mutate(SendBroadcastDocument, { input }));
        if (!answer) return;
        const { id, progress } = answer.broadcast.broadcast;
        answers.push({ broadcastId: idOf('Broadcast', id) ?? id, targets: progress.targets });
      }
      await pause(random.integer(200, 1_200));
    }
  }

  async function cancel(messageId: string): Promise<void> {
    try {
      await within(answerTimeoutMs, client.mutate(CancelMessageDocument, { id: messageId }));
      cancelled.push(messageId);
    } catch {
      // Final already; or nobody knows.
    }
  }

  async function call(): Promise<void> {
    while (!isOver) {
      const draft = newDraft();
      const { key, agent, priority } = draft;
      const message: Wanted = { key, agent, priority, draft, askedAtMs: preciseNowMs(), answers: [] };
      wanted.push(message);
      // Some ask twice at once, or once more later on.
      const [messageId] = await Promise.all(
        random.chance(0.1) ? [accept(message), accept(message)] : [accept(message)],
      );
      if (messageId && random.chance(0.05)) await cancel(messageId);
      const earlier = wanted[random.integer(0, wanted.length - 1)];
      if (earlier && random.chance(0.1)) await accept(earlier);
      await pause(random.integer(10, 120));
    }
  }

  const calls = [broadcast(), ...Array.from({ length: options.callers }, call)];

  async function finish(): Promise<void> {
    isOver = true;
    await Promise.all(calls);
    await client.close();
  }

  return {
    sends: wanted,
    broadcasts,
    cancelled,
    get lostAnswers() {
      return lostAnswers;
    },
    surprises,
    finish,
    abandon() {
      isAbandoned = true;
      return finish();
    },
  };
}

/** Asks once; gives the message's id. Throws a ConsumerError, or whatever fetch throws. */
async function ask(
  client: ConsumerClient,
  gateway: { readonly url: string; readonly token: string },
  draft: Draft,
): Promise<string> {
  const { key, agent, priority, ttlSeconds, maxRetries } = draft;
  if (draft.via === 'rest') return askRest(gateway, draft);
  const { sendMessage } = await client.mutate(SendMessageDocument, {
    input: {
      ...{ agentId: agent, channel: 'POLICIES', payload: { key }, priority: priorityNames[priority] },
      ...{ ttl: ttlSeconds, maxRetries, idempotencyKey: key },
    },
  });
  return idOf('Message', sendMessage.message.id) ?? sendMessage.message.id;
}

async function askRest(
  gateway: { readonly url: string; readonly token: string },
  { key, agent }: Draft,
): Promise<string> {
  const response = await fetch(`${gateway.url}/api/v1/agents/${agent}/send`, {
    method: 'POST',
    headers: { authorization: `Bearer ${gateway.token}`, 'idempotency-key': key },
    body: JSON.stringify({ channel: 'policies', message: { key }, message_type: 'request' }),
  });
  const answer: unknown = await response.json();
  if (response.ok) return sent.parse(answer).message_id;
  throw new ConsumerError(problem.parse(answer).code, `${response.status} from REST`);
}

async function within<Value>(timeoutMs: number, answer: Promise<Value>): Promise<Value> {
  const late = new AbortController();
  try {
    return await Promise.race([
      answer,
      pause(timeoutMs, null, { signal: late.signal }).then(() => Promise.reject(new Error('no answer in time'))),
    ]);
  } finally {
    late.abort();
  }
}
