import DataLoader from 'dataloader';
import type { Scope } from '../access/scope.ts';
import type { EventFilter, StoredEvent } from '../events/event.ts';
import type { Events } from '../events/events.ts';
import type { Agent } from '../fleet/agent.ts';
import type { Fleet } from '../fleet/fleet.ts';
import { groupBy } from '../group-by.ts';
import type { Broadcast, BroadcastProgress, Message, MessageStatus } from '../messages/message.ts';
import type { Messages } from '../messages/messages.ts';
import type { KeysetRange, Page } from '../paging.ts';

/** A page of events of one agent. Loads with the same filter and range become one call. */
export interface AgentEventsKey {
  readonly agentUid: string;
  readonly filter: EventFilter;
  readonly range: KeysetRange<number>;
}

export interface AgentMessagesKey {
  readonly agentUid: string;
  readonly statuses: readonly MessageStatus[] | undefined;
  readonly range: KeysetRange<number>;
}

export interface AgentMessageCountKey {
  readonly agentUid: string;
  readonly statuses: readonly MessageStatus[] | undefined;
}

/** What one operation loads for many objects at once: a bounded number of calls, however many objects a page holds. */
export interface Loaders {
  readonly agents: DataLoader<string, Agent | null>;
  readonly activeChannels: DataLoader<string, readonly string[]>;
  readonly eventsOfAgent: DataLoader<AgentEventsKey, Page<StoredEvent>, string>;
  readonly messagesOfAgent: DataLoader<AgentMessagesKey, Page<Message>, string>;
  readonly messageCountOfAgent: DataLoader<AgentMessageCountKey, number, string>;
  readonly replies: DataLoader<string, readonly StoredEvent[]>;
  readonly broadcasts: DataLoader<string, Broadcast | null>;
  readonly progress: DataLoader<string, BroadcastProgress>;
  /** Forgets everything: after a change, and before each item of a subscription. */
  forget(): void;
}

export function createLoaders(
  scope: Scope,
  services: { readonly fleet: Fleet; readonly events: Events; readonly messages: Messages },
): Loaders {
  const { fleet, events, messages } = services;

  const loaders = {
    agents: byId<Agent | null>(
      async (uids) => new Map((await fleet.findAll(scope, uids)).map((agent) => [agent.uid, agent])),
      null,
    ),
    activeChannels: byId<readonly string[]>((uids) => fleet.activeChannels(scope, uids), []),
    eventsOfAgent: byArguments(
      ({ filter, range }: AgentEventsKey) => JSON.stringify([filter, range]),
      (uids, { filter, range }) => events.pageByAgent(scope, uids, filter, range),
      emptyPage,
    ),
    messagesOfAgent: byArguments(
      ({ statuses, range }: AgentMessagesKey) => JSON.stringify([statuses, range]),
      (uids, { statuses, range }) => messages.pageByAgent(scope, uids, statuses, range),
      emptyPage,
    ),
    messageCountOfAgent: byArguments(
      ({ statuses }: AgentMessageCountKey) => JSON.stringify([statuses]),
      (uids, { statuses }) => messages.countByAgent(scope, uids, statuses),
      0,
    ),
    replies: byId<readonly StoredEvent[]>((messageIds) => events.repliesTo(scope, messageIds), []),
    broadcasts: byId<Broadcast | null>(
      async (ids) => new Map((await messages.findBroadcasts(scope, ids)).map((broadcast) => [broadcast.id, broadcast])),
      null,
    ),
    progress: byId<BroadcastProgress>((ids) => messages.progress(scope, ids), noProgress),
  };

  return {
    ...loaders,
    forget() {
      for (const loader of Object.values(loaders)) loader.clearAll();
    },
  };
}

const emptyPage = { items: [], hasNextPage: false, hasPreviousPage: false };
const noProgress = { targets: 0, queued: 0, sent: 0, delivered: 0, failed: 0, expired: 0, cancelled: 0 };

/** One call for all ids that are asked for in the same turn; `absent` for those that it does not answer. */
function byId<Value>(
  load: (ids: readonly string[]) => Promise<ReadonlyMap<string, Value>>,
  absent: Value,
): DataLoader<string, Value> {
  return new DataLoader(async (ids) => {
    const found = await load(ids);
    return ids.map((id) => found.get(id) ?? absent);
  });
}

/** One call for each different set of arguments, for all agents that ask with it. */
function byArguments<Key extends { readonly agentUid: string }, Value>(
  argumentsOf: (key: Key) => string,
  load: (agentUids: readonly string[], sample: Key) => Promise<ReadonlyMap<string, Value>>,
  absent: Value,
): DataLoader<Key, Value, string> {
  return new DataLoader<Key, Value, string>(
    async (keys) => {
      const loads = [...groupBy(keys, argumentsOf)].map(async ([text, group]) => {
        const [sample] = group;
        const found = sample && (await load([...new Set(group.map((key) => key.agentUid))], sample));
        return [text, found] as const;
      });
      const results = new Map(await Promise.all(loads));
      return keys.map((key) => results.get(argumentsOf(key))?.get(key.agentUid) ?? absent);
    },
    { cacheKeyFn: (key) => `${key.agentUid}${argumentsOf(key)}` },
  );
}
