import type { StoredEvent } from '../events/event.ts';
import type { Agent } from '../fleet/agent.ts';
import type { Message } from '../messages/message.ts';
import type { Page } from '../paging.ts';
import { builder } from './builder.ts';
import { AgentRef, EventRef, MessageRef } from './refs.ts';

interface PageInfo {
  readonly hasNextPage: boolean;
  readonly hasPreviousPage: boolean;
  readonly startCursor: string | null;
  readonly endCursor: string | null;
}

/** A page that is read when a field of it is asked for, once. */
export interface Connection<Node> {
  readonly edges: Promise<{ cursor: string; node: Node }[]>;
  readonly pageInfo: Promise<PageInfo>;
}

export interface CountedConnection<Node> extends Connection<Node> {
  /** Counts what the whole list holds. */
  count(): Promise<number>;
}

export const AgentConnection = builder.connectionObject<typeof AgentRef, CountedConnection<Agent>>({
  type: AgentRef,
  name: 'AgentConnection',
  needs: 'agents:read',
  fields: (t) => ({ totalCount: t.int({ resolve: (connection) => connection.count() }) }),
});

export const MessageConnection = builder.connectionObject<typeof MessageRef, CountedConnection<Message>>({
  type: MessageRef,
  name: 'MessageConnection',
  needs: 'messages:read',
  fields: (t) => ({ totalCount: t.int({ resolve: (connection) => connection.count() }) }),
});

export const EventConnection = builder.connectionObject<typeof EventRef, Connection<StoredEvent>>({
  type: EventRef,
  name: 'EventConnection',
  needs: 'events:read',
});

export function connectionOf<Node>(
  load: () => Promise<Page<Node>>,
  cursorOf: (node: Node) => string,
): Connection<Node> {
  let loading: Promise<Page<Node>> | null = null;
  const page = () => {
    loading ??= load();
    return loading;
  };
  return {
    get edges() {
      return page().then(({ items }) => items.map((node) => ({ cursor: cursorOf(node), node })));
    },
    get pageInfo() {
      return page().then(({ items, hasNextPage, hasPreviousPage }) => {
        const [first, last] = [items[0], items.at(-1)];
        return {
          hasNextPage,
          hasPreviousPage,
          startCursor: first === undefined ? null : cursorOf(first),
          endCursor: last === undefined ? null : cursorOf(last),
        };
      });
    },
  };
}

export function countedConnectionOf<Node>(
  load: () => Promise<Page<Node>>,
  cursorOf: (node: Node) => string,
  count: () => Promise<number>,
): CountedConnection<Node> {
  const connection = connectionOf(load, cursorOf);
  return {
    get edges() {
      return connection.edges;
    },
    get pageInfo() {
      return connection.pageInfo;
    },
    count,
  };
}
