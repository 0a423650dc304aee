import { groupBy } from '../../src/group-by.ts';
import { isFinal, type MessageStatus } from '../../src/messages/message.ts';
import type { CommandRead, Hold, Invariant, Send, StatusSeen, StoredMessage } from './history.ts';

/** Which status may follow which (docs/DELIVERY.md, "States"). */
const successors: Readonly<Record<MessageStatus, readonly MessageStatus[]>> = {
  pending: ['sent', 'failed', 'expired', 'cancelled'],
  sent: ['pending', 'delivered', 'failed', 'expired', 'cancelled'],
  delivered: [],
  failed: [],
  expired: [],
  cancelled: [],
};

/** How long a message may be on its way, which is written while it has time left. */
const wayMs = 1_000;

export const messageInvariants: Readonly<Record<string, Invariant>> = {
  'what was accepted is stored': ({ sends, stored }) => {
    const messages = byId(stored.messages);
    return sends.flatMap((send) =>
      send.answers.flatMap(({ messageId }) => {
        const message = messages.get(messageId);
        if (!message) return [`${messageId} for ${send.agent}, key ${send.key}, is gone`];
        const isSame = message.agent === send.agent && message.priority === send.priority && message.key === send.key;
        return isSame ? [] : [`${messageId} is not what was asked for with key ${send.key}`];
      }),
    );
  },

  'a key makes one message': ({ sends, stored }) => {
    const stand = groupBy(
      stored.messages.filter(({ key }) => key !== null),
      ({ key }) => key,
    );
    return [
      ...sends
        .filter(({ answers }) => new Set(answers.map(({ messageId }) => messageId)).size > 1)
        .map(({ key }) => key),
      ...[...stand].flatMap(([key, messages]) => (messages.length > 1 ? [key] : [])),
    ].map((key) => `key ${key} stands for several messages`);
  },

  'a broadcast is stored whole and once': ({ broadcasts, stored }) => {
    const messages = groupBy(stored.messages, ({ broadcastId }) => broadcastId);
    return broadcasts.flatMap(({ key, answers }) => {
      const [first] = answers;
      if (!first) return [];
      const count = messages.get(first.broadcastId)?.length ?? 0;
      const isSame = answers.every(({ broadcastId }) => broadcastId === first.broadcastId);
      return isSame && count === first.targets
        ? []
        : [`key ${key}: ${count} messages of ${first.targets} in ${answers.length} answers`];
    });
  },

  'what is delivered was read by its agent': ({ reads, stored }) => {
    const read = new Set(reads.map(({ agent, messageId }) => `${agent} ${messageId}`));
    return stored.messages
      .filter(({ status, agent, id }) => status === 'delivered' && !read.has(`${agent} ${id}`))
      .map(({ id, agent, attempts }) => `${id}, sent ${attempts} times to ${agent}`);
  },

  'an agent of v2 carries a command out once': ({ applied }) =>
    [...groupBy(applied, ({ agent, messageId }) => `${messageId} by ${agent}`)].flatMap(([what, times]) =>
      times.length > 1 ? [`${what}, ${times.length} times`] : [],
    ),

  'nothing is read but what is stored for that agent': ({ reads, stored }) => {
    const messages = byId(stored.messages);
    return reads
      .filter(({ agent, messageId, readAtMs }) => {
        const message = messages.get(messageId);
        return message ? message.agent !== agent : readAtMs < stored.readAtMs;
      })
      .map(({ agent, messageId }) => `${messageId}, read by ${agent}`);
  },

  'nothing is read after its time': ({ reads, holds, stored }) => {
    const messages = byId(stored.messages);
    return reads.flatMap(({ agent, messageId, readAtMs }) => {
      const expiresAtMs = messages.get(messageId)?.expiresAtMs ?? readAtMs;
      const lateMs = readAtMs - expiresAtMs - heldMs(holds, expiresAtMs, readAtMs);
      return lateMs > wayMs ? [`${messageId}, read by ${agent} ${Math.round(lateMs)} ms late`] : [];
    });
  },

  'nothing is sent more often than it may be': ({ reads, stored }) => {
    const times = groupBy(reads, ({ messageId }) => messageId);
    return stored.messages.flatMap(({ id, attempts, maxRetries, status }) => {
      const read = times.get(id)?.length ?? 0;
      const isOverRead = isFinal(status) && read > attempts;
      return attempts > maxRetries + 1 || isOverRead
        ? [`${id}: sent ${attempts} times, read ${read} times, ${maxRetries} retries allowed`]
        : [];
    });
  },

  'an agent reads in order what has the same priority': ({ sends, reads }) => {
    const sendOf = new Map(sends.flatMap((send) => send.answers.map(({ messageId }) => [messageId, send] as const)));
    return [...groupBy(firstReads(reads), ({ agent }) => agent)].flatMap(([agent, ofAgent]) => {
      const sent = ofAgent.flatMap(({ messageId }) => sendOf.get(messageId) ?? []);
      return [...groupBy(sent, ({ priority }) => priority).values()].flatMap((inOrder) =>
        overtaken(inOrder).map(({ key, priority }) => `${agent}: a later ${priority} message came before key ${key}`),
      );
    });
  },

  'a final state stays': ({ statuses, stored }) => {
    const messages = byId(stored.messages);
    return [...groupBy(statuses, ({ messageId }) => messageId)].flatMap(([id, seen]) => {
      const [final] = seen.filter(({ status }) => isFinal(status)).sort((a, b) => a.toldAtMs - b.toldAtMs);
      if (!final) return [];
      const later = seen.filter((other) => isLater(other, final)).map(({ status }) => status);
      const now = messages.get(id)?.status ?? final.status;
      const other = [...later, now].find((status) => status !== final.status);
      return other ? [`${id}: ${final.status}, then ${other}`] : [];
    });
  },

  'updates tell every change of status once, in order': ({ statuses }) => {
    const pushed = statuses.filter(({ source }) => source !== 'query');
    return [...groupBy(pushed, ({ messageId, source }) => `${messageId} in ${source}`)].flatMap(([what, told]) => {
      const wrong = told.find(({ status }, index) => {
        const before = told[index - 1];
        return before && !successors[before.status].includes(status);
      });
      return wrong ? [`${what}: ${told.map(({ status }) => status).join(', ')}`] : [];
    });
  },

  'what was taken back is cancelled': ({ cancelled, stored }) => {
    const messages = byId(stored.messages);
    return cancelled
      .filter((id) => messages.get(id)?.status !== 'cancelled')
      .map((id) => `${id} is ${messages.get(id)?.status ?? 'gone'}`);
  },

  'what is final and not delivered says why': ({ stored }) =>
    stored.messages
      .filter(({ status, failure }) => isFinal(status) && (failure === null) !== (status === 'delivered'))
      .map(({ id, status, failure }) => `${id} is ${status}, failure ${failure}`),
};

export const messagesAtRest: Readonly<Record<string, Invariant>> = {
  'what was accepted is final': ({ stored }) =>
    stored.messages
      .filter(({ status }) => !isFinal(status))
      .map(({ id, status, agent, attempts }) => `${id} to ${agent} is ${status} after ${attempts} attempts`),
};

function byId(messages: readonly StoredMessage[]): ReadonlyMap<string, StoredMessage> {
  return new Map(messages.map((message) => [message.id, message]));
}

/** How long of a span something was held back. */
function heldMs(holds: readonly Hold[], fromMs: number, untilMs: number): number {
  let countedToMs = fromMs;
  let sumMs = 0;
  for (const hold of [...holds].sort((a, b) => a.fromMs - b.fromMs)) {
    const begin = Math.max(hold.fromMs, countedToMs);
    const end = Math.min(hold.untilMs, untilMs);
    if (end <= begin) continue;
    sumMs += end - begin;
    countedToMs = end;
  }
  return sumMs;
}

function firstReads(reads: readonly CommandRead[]): CommandRead[] {
  const seen = new Set<string>();
  return reads.filter(({ messageId }) => !seen.has(messageId) && seen.add(messageId));
}

/** Those that were accepted before one was asked for that stands in front of them. What was asked for at once has no order. */
function overtaken(inOrder: readonly Send[]): Send[] {
  let lastAskedAtMs = 0;
  return inOrder.filter(({ askedAtMs, answers }) => {
    const acceptedAtMs = answers[0]?.answeredAtMs ?? Number.POSITIVE_INFINITY;
    const isOvertaken = acceptedAtMs < lastAskedAtMs;
    lastAskedAtMs = Math.max(lastAskedAtMs, askedAtMs);
    return isOvertaken;
  });
}

/** What is pushed may have been on its way for a while: it is no later than what was asked for meanwhile, unless it is final too. */
function isLater(other: StatusSeen, final: StatusSeen): boolean {
  return isFinal(other.status) || (other.source === 'query' && other.askedAtMs > final.toldAtMs);
}
